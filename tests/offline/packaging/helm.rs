//! The Helm chart: its values are used, its settings exist, and it makes what the plain manifest has.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use factlib::binary::Loader;
use regex::Regex;
use serde_json::Value;

use super::settings::unknown_variables;
use crate::support::repository::{read, yaml};

const CHART: &str = "packaging/helm/factlib";
const TEMPLATES: [&str; 6] = [
    "NOTES.txt",
    "configmap.yaml",
    "deployment.yaml",
    "poddisruptionbudget.yaml",
    "service.yaml",
    "servicemonitor.yaml",
];

fn values() -> Value {
    yaml(&format!("{CHART}/values.yaml")).remove(0)
}

/// The paths of the values, down to those that a user sets as a whole.
fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value.as_object() {
        Some(pairs) if !pairs.is_empty() => {
            for (name, value) in pairs {
                leaves(value, &format!("{path}.{name}"), found);
            }
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn each_value_is_used_and_each_that_is_used_exists() {
    let text: String =
        TEMPLATES.iter().map(|name| read(&format!("{CHART}/templates/{name}"))).collect();
    let named = Regex::new(r"\.Values((?:\.\w+)+)").expect("a pattern");
    let used: BTreeSet<String> =
        named.captures_iter(&text).map(|path| path[1].to_owned()).collect();
    let values = values();
    for path in &used {
        let value = path.split('.').skip(1).try_fold(&values, |value, name| value.get(name));
        assert!(value.is_some(), "values.yaml lacks {path}");
    }
    let mut leaf = BTreeSet::new();
    leaves(&values, "", &mut leaf);
    for path in leaf {
        let is_used =
            used.iter().any(|used| path == *used || path.starts_with(&format!("{used}.")));
        assert!(is_used, "no template uses {path}");
    }
}

#[test]
fn its_configuration_and_variables_are_settings() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let configuration = values()["configuration"].as_str().expect("a text").to_owned();
    // The lines that are commented out are valid, too.
    let password = folder.path().join("kafka-password");
    fs::write(&password, "secret").expect("written");
    let all = configuration.replace("\n# ", "\n");
    let all = all.replace("/etc/factlib/secrets/kafka-password", password.to_str().expect("UTF-8"));
    for text in [&configuration, &all] {
        fs::write(folder.path().join("factlib.toml"), text).expect("written");
        let loaded = Loader::new(folder.path()).env(Vec::<(String, String)>::new()).load();
        let config = loaded.expect("a valid configuration").config;
        assert_eq!(config.kafka.brokers, ["kafka:9092"]);
    }
    let deployment = read(&format!("{CHART}/templates/deployment.yaml"));
    // Names the file, and is no setting.
    let deployment = deployment.replace("FACTLIB_CONFIG", "");
    let unknown = unknown_variables(&deployment);
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn its_versions_are_that_of_the_crate() {
    let chart = yaml(&format!("{CHART}/Chart.yaml")).remove(0);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((&chart["version"], &chart["appVersion"]), (&version.into(), &version.into()));
}

/// Helm, if it is installed.
fn helm() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("helm")).find(|file| file.is_file())
}

/// Runs Helm on the chart.
fn run(helm: &Path, words: &[&str]) -> String {
    let mut command = Command::new(helm);
    command.args(words).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{words:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn render(helm: &Path, sets: &[&str]) -> Vec<Value> {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let words: Vec<&str> = ["template", "relay", CHART].into_iter().chain(sets).collect();
    serde_saphyr::from_multiple(&run(helm, &words)).expect("YAML")
}

fn kind<'a>(documents: &'a [Value], kind: &str) -> Option<&'a Value> {
    documents.iter().find(|document| document["kind"] == kind)
}

#[test]
fn it_makes_what_the_plain_manifest_has() {
    let Some(helm) = helm() else {
        eprintln!("NOT RUN: helm is missing; the other tests read the chart as text");
        return;
    };
    run(&helm, &["lint", "--strict", CHART]);
    let (plain, chart) = (yaml("packaging/kubernetes.yaml"), render(&helm, &[]));
    let pod = |documents: &[Value]| kind(documents, "Deployment").expect("one")["spec"].clone();
    let (plain, made) = (pod(&plain), pod(&chart));
    assert_eq!((&made["replicas"], &made["strategy"]), (&plain["replicas"], &plain["strategy"]));
    let (plain, spec) = (&plain["template"]["spec"], &made["template"]["spec"]);
    for name in [
        "automountServiceAccountToken",
        "enableServiceLinks",
        "securityContext",
        "terminationGracePeriodSeconds",
    ] {
        assert_eq!(spec[name], plain[name], "{name}");
    }
    let (plain, container) = (&plain["containers"][0], &spec["containers"][0]);
    for name in ["args", "livenessProbe", "ports", "readinessProbe", "resources", "securityContext"]
    {
        assert_eq!(container[name], plain[name], "{name}");
    }
    let image = format!("factlib:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(container["image"], image);
    let variables = |container: &Value| -> BTreeSet<String> {
        let all = container["env"].as_array().expect("a list").iter();
        all.map(|of| format!("{}={}", of["name"], of["value"])).collect()
    };
    let (mut expected, made_variables) = (variables(plain), variables(container));
    // The chart has a file of settings.
    expected.retain(|variable| !variable.contains("KAFKA__BROKERS"));
    expected.insert("\"FACTLIB_CONFIG\"=\"/etc/factlib/configuration/factlib.toml\"".into());
    assert_eq!(made_variables, expected);
    let selector = &made["selector"]["matchLabels"];
    let service = &kind(&chart, "Service").expect("a service")["spec"];
    assert_eq!(&service["selector"], selector);
    assert_eq!(service["ports"][0]["targetPort"], container["ports"][0]["name"]);
    let file = &kind(&chart, "ConfigMap").expect("a file of settings")["data"]["factlib.toml"];
    assert_eq!(file, &values()["configuration"]);
    for optional in ["ServiceMonitor", "PodDisruptionBudget"] {
        assert!(kind(&chart, optional).is_none(), "{optional} is not asked for");
    }

    let all = render(
        &helm,
        &[
            "serviceMonitor.enabled=true,podDisruptionBudget.enabled=true",
            "http.port=9000,image.tag=next,secret.name=other,replicas=2",
            "imagePullSecrets[0].name=pull,podLabels.team=shop,nodeSelector.disk=fast",
        ],
    );
    let budget = &kind(&all, "PodDisruptionBudget").expect("a budget")["spec"];
    assert_eq!(&budget["selector"]["matchLabels"], selector);
    let monitor = &kind(&all, "ServiceMonitor").expect("a monitor")["spec"];
    assert_eq!(&monitor["selector"]["matchLabels"], selector);
    let spec = &pod(&all)["template"]["spec"];
    assert_eq!(spec["containers"][0]["ports"][0]["containerPort"], 9000);
    assert!(variables(&spec["containers"][0]).contains("\"FACTLIB_HTTP__HEALTH_PORT\"=\"9000\""));
    assert_eq!(spec["volumes"][1]["secret"]["secretName"], "other");
    assert_eq!(spec["imagePullSecrets"][0]["name"], "pull");

    let fleet = ["fleet.group=tenants,replicas=3,podDisruptionBudget.enabled=true"];
    let (fleet, plain) = (render(&helm, &fleet), yaml("packaging/kubernetes-fleet.yaml"));
    let budget = |of: &[Value]| kind(of, "PodDisruptionBudget").expect("a budget")["spec"].clone();
    assert_eq!(budget(&fleet)["maxUnavailable"], budget(&plain)["maxUnavailable"]);
    let (fleet, plain) = (pod(&fleet), pod(&plain));
    for name in ["replicas", "strategy"] {
        assert_eq!(fleet[name], plain[name], "{name}");
    }
    let variable = |of: &Value, name: &str| {
        let all = of["template"]["spec"]["containers"][0]["env"].as_array().expect("a list");
        all.iter().find(|of| of["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    let name = "FACTLIB_FLEET__INSTANCE";
    assert_eq!(variable(&fleet, name), variable(&plain, name));
    assert_eq!(variable(&fleet, "FACTLIB_FLEET__GROUP")["value"], "tenants");
}
