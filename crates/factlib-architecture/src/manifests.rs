//! Every crate's dependencies, held against the order of crates.

use std::{fs, path::Path};

use crate::{order::Order, read};

/// Returns dependencies on crates to the right, and crates that have no place in the order.
pub fn violations(repository: &Path, order: &Order) -> Result<Vec<String>, String> {
    let crates = repository.join("crates");
    let failed = |error: std::io::Error| format!("{}: {error}", crates.display());
    let mut manifests = vec!["Cargo.toml".to_owned()];
    for entry in fs::read_dir(&crates).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        manifests.push(format!("crates/{name}/Cargo.toml"));
    }
    manifests.sort();
    let mut found = Vec::new();
    for shown in manifests {
        let text = read(&repository.join(&shown))?;
        let Some(name) = package(&text) else { continue };
        let Some(own) = order.place(&name) else {
            found.push(format!("{shown}: crate {name} has no place in the order of crates"));
            continue;
        };
        for (line, dependency) in dependencies(&text) {
            if order.place(&dependency).is_some_and(|other| other >= own) {
                found.push(format!(
                    "{shown}:{line}: {name} depends on {dependency}, which stands to its right"
                ));
            }
        }
    }
    Ok(found)
}

fn package(manifest: &str) -> Option<String> {
    let lines = manifest.lines().skip_while(|line| line.trim() != "[package]").skip(1);
    let mut lines = lines.take_while(|line| !line.starts_with('['));
    let name = lines.find_map(|line| line.trim().strip_prefix("name"))?;
    Some(name.trim_start_matches([' ', '=']).trim().trim_matches('"').to_owned())
}

/// The names in `[dependencies]` and `[build-dependencies]`, with their lines: those for tests may
/// go either way.
fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (line, text) in (1..).zip(manifest.lines()) {
        let text = text.trim();
        if let Some(section) = text.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies") && !section.ends_with("dev-dependencies");
            if let Some((before, name)) = section.split_once("dependencies.")
                && !before.ends_with("dev-")
            {
                found.push((line, name.to_owned()));
            }
        } else if inside && let Some((name, _)) = text.split_once(['=', '.', ' ']) {
            found.push((line, name.trim().trim_matches('"').to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_for_tests_do_not_count() {
        let manifest = "[package]\nname = \"factlib-emit\"\n\n[dependencies]\nbytes = \"1\"\n\
                        factlib-proto.workspace = true\n[dependencies.tokio]\n\
                        [dev-dependencies]\nfactlib = { path = \"..\" }\n";
        assert_eq!(package(manifest).as_deref(), Some("factlib-emit"));
        let names: Vec<_> = dependencies(manifest);
        let expected = [(5, "bytes"), (6, "factlib-proto"), (7, "tokio")];
        assert_eq!(names, expected.map(|(line, name)| (line, name.to_owned())));
    }
}
