//! Which alerts of packaging/alerts.yaml fire in a state that lasts: promtool says.
//!
//! It is given what was scraped: ten minutes as before the state, if the relay was there then,
//! with positions that move; for the rest of an hour, counters, ages and positions go on as
//! between two scrapes of the state, and all else stays as it was, at the smaller of both values.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::Path,
};

use crate::{answers::Answers, support::promtool::test_rules};

const HEALTHY_MINUTES: usize = 10;
const MINUTES: usize = 60;
/// Each alert that fired at any time.
const FIRED: &str = r#"group by (alertname) (last_over_time(ALERTS{alertstate="firing"}[60m]))"#;

/// How the names of positions end.
const POSITION: &str = "_lsn_bytes";

/// The scrapes of an instance: before the state, if it was up then, and twice in it.
pub struct Scrapes<'a> {
    pub before: Option<&'a Answers>,
    pub first: &'a Answers,
    pub last: &'a Answers,
}

/// Holds the alerts that fire for these instances, which are of one job, against these.
///
/// # Errors
/// What promtool says, and what it was given.
pub fn fire(instances: &[Scrapes<'_>], alerts: &BTreeSet<String>) -> Result<(), String> {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/alerts.yaml");
    let known = std::fs::read_to_string(&rules).expect("packaging/alerts.yaml");
    let mut test = format!(
        "rule_files: ['{}']\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n",
        rules.display()
    );
    let mut series = 0;
    for (number, scrapes) in instances.iter().enumerate() {
        for (name, values) in scrapes.series(number) {
            if known.contains(family(&name)) {
                let name = name.replace('\'', "''");
                writeln!(test, "  - {{ series: '{name}', values: '{values}' }}").expect("a text");
                series += 1;
            }
        }
    }
    if series == 0 {
        test = test.replace("input_series:\n", "input_series: []\n");
    }
    let expected = alerts.iter().map(|alert| {
        let name = format!("Factlib{alert}");
        assert!(known.contains(&format!("alert: {name}\n")), "there is no alert {name}");
        format!("      - {{ labels: '{{alertname=\"{name}\"}}', value: 1 }}\n")
    });
    let expected: String = expected.collect();
    write!(
        test,
        "  promql_expr_test:\n  - expr: '{FIRED}'\n    eval_time: {MINUTES}m\n    exp_samples:{}{expected}",
        if expected.is_empty() { " []\n" } else { "\n" }
    )
    .expect("a text");
    test_rules(&test)
}

impl Scrapes<'_> {
    /// Each series, and its values in promtool's notation.
    fn series(&self, instance: usize) -> Vec<(String, String)> {
        let before = self.before.map(values).unwrap_or_default();
        let (first, last) = (values(self.first), values(self.last));
        let minutes = self.last.at.duration_since(self.first.at).as_secs_f64() / 60.0;
        let all = last.iter().map(|(name, last)| {
            let since = *first.get(name).unwrap_or(last);
            let rate = (last - since) / minutes;
            let state = match goes_on(family(name), rate) {
                true => format!("{last:.3}{rate:+.3}"),
                false => format!("{:.3}+0", last.min(since)),
            };
            let (healthy, later) = (HEALTHY_MINUTES - 1, MINUTES - HEALTHY_MINUTES);
            let values = match (self.before, before.get(name)) {
                (None, _) => format!("{state}x{MINUTES}"),
                (Some(_), None) => format!("_x{HEALTHY_MINUTES} {state}x{later}"),
                (Some(_), Some(before)) => {
                    let rate = if family(name).ends_with(POSITION) { 1000 } else { 0 };
                    format!("{before:.3}+{rate}x{healthy} {state}x{later}")
                }
            };
            (with_instance(name, instance), values)
        });
        all.collect()
    }
}

/// A counter, a position, or an age that grows with the clock; `rate` is a minute's.
fn goes_on(family: &str, rate: f64) -> bool {
    let ends = ["_total", "_bucket", "_count", "_sum", POSITION];
    ends.iter().any(|end| family.ends_with(end)) || family.ends_with("_seconds") && rate > 50.0
}

/// The name without its labels.
fn family(series: &str) -> &str {
    series.split('{').next().unwrap_or_default()
}

fn with_instance(series: &str, instance: usize) -> String {
    let labels = format!("job=\"relay\",instance=\"{instance}\"");
    match series.split_once('{') {
        Some((name, others)) => format!("{name}{{{labels},{others}"),
        None => format!("{series}{{{labels}}}"),
    }
}

/// The samples of a scrape.
fn values(answers: &Answers) -> BTreeMap<String, f64> {
    let lines = answers.metrics.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    samples.collect()
}
