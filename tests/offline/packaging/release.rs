//! `scripts/release`: of the binary under test, all that needs no release build.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

use crate::support::repository::read;

/// What a command prints; it has to succeed.
fn out(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs the script, and returns its checksums by file.
fn release(folder: &Path) -> BTreeMap<String, String> {
    let binary = Path::new(env!("CARGO_BIN_EXE_factlib"));
    let target = binary.parent().and_then(Path::parent).expect("the target folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/release");
    out(Command::new(script).arg(folder).env("CARGO_TARGET_DIR", target).env("PROFILE", "dev"));
    out(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(folder));
    let sums = fs::read_to_string(folder.join("SHA256SUMS")).expect("checksums");
    let lines = sums.lines().map(|line| line.split_once("  ").expect("a sum and a name"));
    lines.map(|(sum, name)| (name.to_owned(), sum.to_owned())).collect()
}

/// The names of `[[package]]` in Cargo.lock, with their versions.
fn locked() -> BTreeSet<String> {
    let text = read("Cargo.lock");
    let mut name = "";
    let mut all = BTreeSet::new();
    for line in text.lines() {
        let value = |key: &str| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"');
        name = value("name").unwrap_or(name);
        all.extend(value("version").map(|version| format!("{name}@{version}")));
    }
    all
}

#[test]
fn it_makes_what_it_says_and_the_same_each_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sums = release(&folder.path().join("first"));
    assert_eq!(
        sums,
        release(&folder.path().join("second")),
        "the same files give the same archives"
    );

    let version = env!("CARGO_PKG_VERSION");
    let tarball = sums.keys().find(|name| name.ends_with(".tar.gz") && name.contains("linux"));
    let name = tarball.expect("a tarball").trim_end_matches(".tar.gz");
    let source = format!("factlib-{version}.tar.gz");
    let expected = [
        format!("{name}.cdx.json"),
        format!("{name}.tar.gz"),
        source.clone(),
        format!("factlib-helm-{version}.tgz"),
        "factlib.rb".into(),
    ];
    assert_eq!(sums.keys().cloned().collect::<BTreeSet<_>>(), BTreeSet::from(expected));

    let first = folder.path().join("first");
    let listed = out(Command::new("tar").arg("-tzf").arg(first.join(format!("{name}.tar.gz"))));
    for file in [
        "factlib",
        "LICENSE",
        "README.md",
        "THIRD-PARTY-LICENSES.txt",
        "factlib.example.toml",
        "man/factlib.1",
        "man/factlib-slot-drop.1",
        "completions/_factlib",
        "packaging/alerts.yaml",
    ] {
        assert!(listed.lines().any(|line| line == format!("{name}/{file}")), "no {file}");
    }

    let formula = fs::read_to_string(first.join("factlib.rb")).expect("a formula");
    assert!(!formula.contains('@'), "a placeholder is left: {formula}");
    assert!(formula.contains(&format!("sha256 \"{}\"", sums[&source])), "{formula}");
    assert!(formula.contains(&format!("/v{version}/{source}\"")), "{formula}");
}

#[test]
fn the_bill_of_materials_is_that_of_the_lock_file() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/sbom");
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let bill = out(Command::new(script).arg(target).env("SOURCE_DATE_EPOCH", "0"));
    let bill: Value = serde_json::from_str(&bill).expect("JSON");
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(bill["metadata"]["timestamp"], "1970-01-01T00:00:00Z");
    let component = &bill["metadata"]["component"];
    assert_eq!(
        (&component["name"], &component["version"]),
        (&"factlib".into(), &env!("CARGO_PKG_VERSION").into())
    );

    let components = bill["components"].as_array().expect("a list");
    let locked = locked();
    let mut scopes = BTreeMap::new();
    for component in components {
        let text =
            |key: &str| component[key].as_str().unwrap_or_else(|| panic!("{key} of {component}"));
        let id = format!("{}@{}", text("name"), text("version"));
        assert!(locked.contains(&id), "{id} is not in Cargo.lock");
        assert_eq!(text("purl"), format!("pkg:cargo/{id}"));
        let is_ours = text("name").starts_with("factlib");
        assert_eq!(
            component["hashes"][0]["content"].as_str().map_or(0, str::len),
            if is_ours { 0 } else { 64 },
            "{id}"
        );
        assert!(component["licenses"][0]["expression"].is_string(), "{id} has no licence");
        scopes.insert(text("name").to_owned(), text("scope").to_owned());
    }
    for (name, scope) in
        [("tokio", "required"), ("rustls", "required"), ("ring", "required"), ("syn", "excluded")]
    {
        assert_eq!(scopes.get(name).map(String::as_str), Some(scope), "{name}");
    }
    // Of tests and of the demo, not of what is released.
    for name in ["rdkafka", "factlib-testing", "criterion"] {
        assert!(!scopes.contains_key(name), "{name}");
    }

    // Whoever depends, and on what, is a component.
    let ids: BTreeSet<_> = components
        .iter()
        .chain([component])
        .map(|of| &of["bom-ref"])
        .map(Value::to_string)
        .collect();
    let edges = bill["dependencies"].as_array().expect("a list");
    let refs = edges.iter().map(|of| of["ref"].to_string()).collect::<BTreeSet<_>>();
    assert_eq!(refs, ids);
    for used in edges.iter().flat_map(|of| of["dependsOn"].as_array().expect("a list")) {
        assert!(ids.contains(&used.to_string()), "{used}");
    }
}
