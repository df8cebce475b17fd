//! Builds for users have no faults, and shipped binaries have no throwaway servers.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use crate::support::repository::read;

/// The package's manifest, as cargo understands it.
fn package() -> Value {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages.iter().find(|of| of["name"] == "factlib").expect("ours").clone()
}

/// These features and all that they bring.
fn closure<'a>(package: &'a Value, features: &[&'a str]) -> BTreeSet<&'a str> {
    let (mut all, mut open) = (BTreeSet::new(), features.to_vec());
    while let Some(feature) = open.pop() {
        if all.insert(feature) {
            let brings = package["features"][feature].as_array().into_iter().flatten();
            open.extend(brings.filter_map(Value::as_str));
        }
    }
    all
}

/// The features of the cargo commands in a text, by default those of `default`.
fn built(text: &str) -> Vec<Vec<String>> {
    let joined = text.replace("\\\n", " ").replace("\", \"", " ");
    let builds = ["cargo build", "cargo install", "cargo run"];
    let lines = joined.lines().filter(|line| builds.iter().any(|build| line.contains(build)));
    let features = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let mut features = Vec::new();
        if !words.contains(&"--no-default-features") {
            features.push("default".to_owned());
        }
        assert!(!words.contains(&"--all-features"), "{line}");
        for pair in words.windows(2).filter(|pair| pair[0] == "--features") {
            features.extend(pair[1].trim_matches(['`', '"', ',']).split(',').map(str::to_owned));
        }
        features
    };
    lines.map(features).collect()
}

#[test]
fn no_build_that_a_user_gets_has_faults() {
    let package = package();
    assert!(closure(&package, &["faults"]).contains("test-util"), "the feature has another name");
    assert!(!closure(&package, &of_deb(&package)).contains("faults"), "the Debian package");
    let mut builds = 0;
    for file in [
        "README.md",
        "docs/install.md",
        "docs/kafka-clients.md",
        "packaging/Dockerfile",
        "packaging/homebrew/factlib.rb",
        "scripts/package",
        "scripts/release",
        "Makefile",
    ] {
        // Make's variable is cargo; what tests and measurements build is not for users.
        for features in built(&read(file).replace("$(CARGO) run", "cargo run")) {
            let features: Vec<&str> = features.iter().map(String::as_str).collect();
            assert!(!closure(&package, &features).contains("faults"), "{file}: {features:?}");
            builds += 1;
        }
    }
    assert!(builds >= 5, "{builds}");
    // Whoever picks features picks faults by name, or not at all.
    for feature in package["features"].as_object().expect("features").keys() {
        let has = closure(&package, &[feature]).contains("faults");
        assert_eq!(has, feature == "faults", "{feature}");
    }
}

/// The features that the Debian package is described with.
fn of_deb(package: &Value) -> Vec<&str> {
    let deb = &package["metadata"]["deb"];
    let features = deb["features"].as_array().expect("a list").iter().filter_map(Value::as_str);
    let default = (deb["default-features"] != false).then_some("default");
    features.chain(default).collect()
}

#[test]
fn what_is_shipped_has_no_throwaway_servers() {
    let package = package();
    let servers = "dep:factlib-testing";
    assert!(closure(&package, &["demo"]).contains(servers), "the crate has another name");
    assert!(!closure(&package, &["cli"]).contains(servers));
    assert!(!closure(&package, &of_deb(&package)).contains(servers), "the Debian package");
    for file in ["packaging/Dockerfile", "scripts/package", "scripts/release"] {
        let text = read(file).replace("\\\n", " ");
        let ours = text.lines().filter(|line| line.contains("--bin factlib"));
        let builds = built(&ours.collect::<Vec<_>>().join("\n"));
        assert_eq!(builds.len(), 1, "{file}");
        for features in builds {
            let features: Vec<&str> = features.iter().map(String::as_str).collect();
            assert!(!closure(&package, &features).contains(servers), "{file}: {features:?}");
        }
    }
}
