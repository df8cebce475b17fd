//! `factlib takeover debezium` as a command: what it prints, writes, and ends with.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

const CONNECTOR: &str = r#"{
  "name": "outbox",
  "config": {
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "database.hostname": "db",
    "database.user": "relay",
    "database.password": "hunter2",
    "database.dbname": "shop",
    "topic.prefix": "shop",
    "plugin.name": "pgoutput",
    "slot.name": "outbox",
    "table.include.list": "public.outbox",
    "snapshot.mode": "never",
    "transforms": "outbox",
    "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
    "value.converter": "org.apache.kafka.connect.storage.StringConverter"
  }
}
"#;
const WORKER: &str = "bootstrap.servers=k:9092\nkey.converter=StringConverter\n";

fn run(folder: &Path, line: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_factlib"));
    command.env_clear().current_dir(folder).args(["takeover", "debezium"]).args(line);
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [("connector.json", CONNECTOR), ("worker.properties", WORKER)] {
        fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}

const LINE: [&str; 4] = ["--config", "connector.json", "--worker", "worker.properties"];

#[test]
fn the_mapping_is_printed_and_written_once() {
    let folder = folder();
    let (code, out, err) = run(folder.path(), &LINE);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    for line in [
        "maps: factlib does the same\n",
        "  line 11: slot.name = outbox\n      postgres.slot\n",
        "  line 7: database.password = [redacted]\n",
        "harmless: no equivalent is needed\n",
        "brokers = [\"k:9092\"]\n",
        "[outbox.connect]\nkey = \"string\"\nvalue = \"string\"\nheaders = \"simple\"\n",
    ] {
        assert!(out.contains(line), "{line:?} in {out}");
    }
    assert!(!out.contains("hunter2"), "{out}");
    let write = [&LINE[..], &["--write", "factlib.toml"]].concat();
    let (code, out, _) = run(folder.path(), &write);
    assert!(code == Some(0) && out.ends_with("\nwrote factlib.toml\n"), "{out}");
    let (code, _, err) = run(folder.path(), &write);
    let refused = "factlib: factlib.toml exists already (--force replaces it)\n";
    assert_eq!((code, err.as_str()), (Some(2), refused));
    let (code, ..) = run(folder.path(), &[&write[..], &["--force"]].concat());
    assert_eq!(code, Some(0));
    let nowhere = [&LINE[..], &["--write", "no/where.toml"]].concat();
    let (code, _, err) = run(folder.path(), &nowhere);
    assert!(code == Some(2) && err.starts_with("factlib: cannot write no/where.toml: "), "{err}");
}

#[test]
fn what_is_missing_is_named_and_ends_it_with_2() {
    let folder = folder();
    let (code, out, _) = run(folder.path(), &["--config", "connector.json", "--json"]);
    assert_eq!(code, Some(2));
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let settings = json["settings"].as_array().expect("a list");
    let missing = settings.iter().filter(|of| of["equivalence"] == "missing");
    let missing: Vec<_> = missing.map(|of| of["key"].as_str().expect("a key")).collect();
    assert_eq!(missing, ["bootstrap.servers", "key.converter"]);
    assert!(json["toml"].as_str().is_some_and(|toml| toml.contains("[[outbox]]")), "{json}");
    for mode in ["--check", "--shadow"] {
        let (code, _, err) = run(folder.path(), &["--config", "connector.json", mode]);
        let said = "factlib: no equivalent is known for bootstrap.servers, key.converter of Debezium \
                    (make a configuration with --write, complete it, and name it with --factlib)\n";
        assert_eq!((code, err.as_str()), (Some(2), said));
    }
    let (code, _, err) = run(folder.path(), &["--config", "connector.json", "--take"]);
    assert!(code == Some(2) && err.contains("--factlib"), "{err}");
    let (code, _, err) = run(folder.path(), &["--config", "none.json"]);
    assert!(code == Some(2) && err.starts_with("factlib: cannot read none.json: "), "{err}");
}
