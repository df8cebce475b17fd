//! axe-core, which holds a page against the rules of accessibility (WCAG 2.2, level AA).

use std::path::PathBuf;

/// As `scripts/bootstrap` fetches it.
const FOLDER: &str = "axe-core-4.11.1";

/// A list of violations as JSON text.
pub const RUN: &str = "axe.run(document, { resultTypes: ['violations'], runOnly: \
    ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }).then(({ violations }) => \
    JSON.stringify(violations.map(({ id, help, nodes }) => `${id} (${help}): ` + \
    nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join(' | '))))";

/// The script, which gives the page a global `axe`. Its last value is nothing.
pub fn script() -> String {
    let cache = std::env::var_os("FACTLIB_CACHE").map(PathBuf::from);
    let cache =
        cache.unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".cache/factlib"));
    let path = cache.join(FOLDER).join("axe.min.js");
    let script = std::fs::read_to_string(&path);
    let script = script.unwrap_or_else(|error| {
        panic!("{}: {error}; scripts/bootstrap --tests gets it", path.display())
    });
    script + "\n;undefined"
}
