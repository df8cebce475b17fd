//! The files of a folder of pipelines.

use std::fs;

use factlib::{
    binary::Loader,
    config::{Config, FleetConfig},
};
use tempfile::TempDir;

use super::folder as folder_with;

fn folder() -> TempDir {
    folder_with(&[])
}

fn fleet() -> FleetConfig {
    let mut fleet = FleetConfig::default();
    fleet.pipelines = Some("p".into());
    fleet
}

fn write(folder: &TempDir, path: &str, text: &str) {
    let path = folder.path().join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, text).expect("a file");
}

#[test]
fn a_pipelines_file_overrides_everything_else() {
    let folder = folder();
    write(&folder, "factlib.toml", "postgres.slot = \"x\"\nkafka.topic_prefix = \"all\"");
    write(&folder, "p/acme-eu.toml", "kafka.topic_prefix = \"acme\"");
    write(&folder, "p/globex.toml", "postgres.slot = \"own\"");
    let variable = ("FACTLIB_KAFKA__TOPIC_PREFIX".to_owned(), "variable".to_owned());
    let loader = Loader::new(folder.path()).env([variable]);
    let load =
        |name: &str| -> Config { loader.load_pipeline(&fleet(), name).expect("no mistake").config };
    let (acme, globex) = (load("acme-eu"), load("globex"));
    assert_eq!((&*acme.postgres.slot, acme.topic_prefix()), ("factlib_acme_eu", "acme"));
    assert_eq!((&*globex.postgres.slot, globex.topic_prefix()), ("own", "variable"));
    let loaded = loader.load_pipeline(&fleet(), "acme-eu").expect("no mistake");
    let slot = loaded.values.iter().find(|value| value.name == "postgres.slot").expect("a value");
    assert_eq!(slot.source, "default of pipeline acme-eu");
}

#[test]
fn the_number_of_a_pipeline_changes_with_its_files() {
    let folder = folder();
    write(&folder, "p/a.toml", "");
    write(&folder, "p/b.toml", "");
    write(&folder, "p/..data/c.toml", "");
    write(&folder, "p/.d.toml", "");
    write(&folder, "p/e.txt", "");
    let loader = Loader::new(folder.path());
    let list = || loader.pipelines(&fleet(), &[]).expect("a list");
    let before = list();
    assert_eq!(before.keys().collect::<Vec<_>>(), ["a", "b"]);
    write(&folder, "p/a.toml", "postgres.slot = \"s\"");
    let after = list();
    assert!(before["a"] != after["a"] && before["b"] == after["b"]);
    write(&folder, "factlib.toml", "kafka.topic_prefix = \"t\"");
    assert_ne!(list()["b"], after["b"], "what all share has changed");
}

#[test]
fn what_belongs_to_the_process_is_refused() {
    let folder = folder();
    let mistake = |name: &str| {
        let failed = Loader::new(folder.path()).load_pipeline(&fleet(), name);
        failed
            .expect_err("a mistake")
            .to_string()
            .replace(&*folder.path().display().to_string(), "")
    };
    for section in ["http.health_port = 1", "log.level = \"warn\"", "fleet.retry_after = \"1s\""] {
        write(&folder, "p/a.toml", section);
        let setting = section.split(' ').next().expect("a name");
        assert_eq!(
            mistake("a"),
            format!(
                "{setting} in /p/a.toml line 1 is not a setting of one pipeline (set it in the \
                 file of the process)"
            )
        );
    }
    write(&folder, "p/A b.toml", "");
    assert_eq!(
        mistake("A b"),
        "\"A b\" does not name a pipeline (use lower-case letters, digits, '_', '-' and '.')"
    );
    assert!(mistake("b").starts_with("cannot read the configuration file /p/b.toml: "));
    let other = folder_with(&[]);
    let none = Loader::new(other.path()).pipelines(&fleet(), &[]).expect_err("no folder");
    assert!(none.to_string().contains("cannot read the configuration file"), "{none}");
}

#[test]
fn a_database_that_matches_has_a_pipeline_also_without_a_file() {
    let folder = folder();
    write(&folder, "p/tenant-b.toml", "kafka.topic_prefix = \"b\"");
    write(&folder, "p/tenant-c.toml", "postgres.url = \"postgresql://other/c\"");
    let mut fleet = fleet();
    fleet.databases = vec!["tenant-*".into()];
    let loader = Loader::new(folder.path());
    let there = ["tenant-a", "tenant-b", "Tenant D"].map(str::to_owned);
    let listed = loader.pipelines(&fleet, &there).expect("a list");
    assert_eq!(listed.keys().collect::<Vec<_>>(), ["tenant-a", "tenant-b", "tenant-c"]);
    let load = |name| loader.load_pipeline(&fleet, name).expect("no mistake").config;
    let database = |name| load(name).postgres.database;
    assert_eq!(database("tenant-a").as_deref(), Some("tenant-a"));
    assert_eq!(database("tenant-b").as_deref(), Some("tenant-b"));
    assert_eq!(database("tenant-c"), None, "its file names another server");
    assert_eq!(load("tenant-a").postgres.slot, "factlib_tenant_a");
    assert_eq!(load("tenant-b").topic_prefix(), "b");
    assert!(loader.load_pipeline(&fleet, "other").is_err(), "no file, and no such database");
}
