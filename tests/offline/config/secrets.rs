//! No secret is ever shown.

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use factlib::{
    binary::{Loaded, Loader, Sourced},
    config::CommandLine,
};
use secrecy::ExposeSecret;

use super::{env, folder, load, mistake_in_env, mistake_in_file, mistake_in_flag};

/// A configuration all of whose secrets contain `hunter2`.
fn with_secrets() -> Loaded {
    load(
        "[kafka]\ntls = true\ntls_certificate = \"c\"\ntls_key = \"k\"\ntls_key_password = \"hunter2\"\n\
         [kafka.properties]\n\"ssl.key.password\" = \"hunter2\"",
        &[
            ("MASTER_DATABASE_URL", "postgresql://u:hunter2@db/shop"),
            ("KAFKA_USERNAME", "user"),
            ("KAFKA_PASSWORD", "hunter2"),
            ("FACTLIB_HTTP__TOKEN", "hunter2-hunter2-hunter2"),
            ("FACTLIB_SCHEMA_REGISTRY__USERNAME", "user"),
            ("FACTLIB_SCHEMA_REGISTRY__PASSWORD", "hunter2"),
            ("FACTLIB_KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2"),
        ],
    )
}

#[test]
fn no_secret_is_shown() {
    let loaded = with_secrets();
    assert_eq!(loaded.config.kafka.properties.values().filter(|v| *v == "hunter2").count(), 2);
    for text in [
        format!("{loaded:?}"),
        format!("{:#?}", loaded.config),
        serde_json::to_string(&loaded.config).expect("plain data"),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("ssl.key.password"), "the names are shown: {text}");
    }
}

/// The value that a loader ends up with, and where it came from.
fn password(loader: &Loader, name: &str) -> (String, String) {
    let loaded = loader.load().expect("a valid configuration");
    let value = match name {
        "kafka.password" => loaded.config.kafka.password.map(|p| p.expose_secret().to_owned()),
        "postgres.password" => {
            loaded.config.postgres.password.map(|p| p.expose_secret().to_owned())
        }
        "postgres.url" => Some(loaded.config.postgres.url.expose_secret().to_owned()),
        _ => loaded.config.kafka.properties.get("sasl.password").cloned(),
    };
    let of = |sourced: &&Sourced| sourced.name.replace('"', "") == name;
    let sourced = loaded.values.iter().find(of).expect("a value");
    (value.expect("set"), sourced.source.clone())
}

#[test]
fn a_secret_may_be_in_a_file_of_its_own() {
    let folder = folder(&[("secret", "hunter2\n"), ("url", "postgresql://u:hunter2@db/shop")]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let user = || Loader::new(folder.path()).env(env(&[("KAFKA_USERNAME", "user")]));
    for (name, variable) in [
        ("kafka.password", "FACTLIB_KAFKA__PASSWORD_FILE"),
        ("kafka.password", "KAFKA_PASSWORD_FILE"),
        ("postgres.password", "FACTLIB_POSTGRES__PASSWORD_FILE"),
        ("kafka.properties.sasl.password", "FACTLIB_KAFKA__PROPERTIES__SASL_PASSWORD_FILE"),
    ] {
        let loader = user().env(env(&[("KAFKA_PASSWORD", "of the Go worker's name")]));
        let loader = loader.env(env(&[(variable, &path("secret"))]));
        let source = format!("file {}, named by environment variable {variable}", path("secret"));
        assert_eq!(password(&loader, name), ("hunter2".into(), source));
    }
    let loader = Loader::new(folder.path()).env(env(&[("MASTER_DATABASE_URL_FILE", &path("url"))]));
    assert_eq!(password(&loader, "postgres.url").0, "postgresql://u:hunter2@db/shop");
    let file = format!(
        "kafka.username = \"u\"\nkafka.password_file = {0:?}\n[kafka.properties]\n\"sasl.password_file\" = {0:?}",
        path("secret")
    );
    std::fs::write(path("factlib.toml"), file).expect("written");
    let loader = Loader::new(folder.path());
    for (name, line) in [("kafka.password", 2), ("kafka.properties.sasl.password", 4)] {
        let (value, source) = password(&loader, name);
        assert_eq!(value, "hunter2");
        assert!(source.contains(&format!("factlib.toml line {line}")), "{source}");
    }
    let loader = user().flag("--set", "kafka.password_file", path("secret"));
    assert_eq!(password(&loader, "kafka.password").0, "hunter2");
}

#[test]
fn the_files_of_kafkas_secrets_are_kept_to_be_read_again() {
    let folder = folder(&[("secret", "hunter2\n")]);
    let path = folder.path().join("secret");
    let variables = |names: &[&str]| -> Vec<_> {
        let path = path.display().to_string();
        names.iter().map(|name| (name.to_string(), path.clone())).collect()
    };
    let load = |file: &str, names: &[&str]| {
        std::fs::write(folder.path().join("factlib.toml"), file).expect("written");
        let loader = Loader::new(folder.path()).env(variables(names));
        loader.load().expect("a valid configuration").config.kafka
    };
    let kafka = load(
        "kafka = {username = \"u\", tls = true, tls_certificate = \"c\", tls_key = \"k\"}",
        &["FACTLIB_KAFKA__PASSWORD_FILE", "FACTLIB_KAFKA__TLS_KEY_PASSWORD_FILE"],
    );
    assert_eq!(kafka.password_file.as_ref(), Some(&path));
    assert_eq!(kafka.tls_key_password_file.as_ref(), Some(&path));
    let kafka = load(
        "[kafka.properties]\n\"sasl.username\" = \"u\"",
        &["FACTLIB_KAFKA__PROPERTIES__SASL_PASSWORD_FILE"],
    );
    assert_eq!(kafka.property_files.get("sasl.password"), Some(&path));
    // A later value replaces the file.
    let loader = Loader::new(folder.path())
        .env(variables(&["KAFKA_PASSWORD_FILE"]))
        .flag("--set", "kafka.username", "u")
        .flag("--set", "kafka.password", "other");
    std::fs::write(folder.path().join("factlib.toml"), "").expect("written");
    assert_eq!(loader.load().expect("valid").config.kafka.password_file, None);
}

#[test]
fn a_file_of_a_secret_that_cannot_be_read_is_named() {
    let folder = folder(&[("empty", "\n")]);
    let path = folder.path().join("empty").display().to_string();
    for (path, why) in [("/nowhere/secret", "No such file"), (&*path, "it is empty")] {
        let text = mistake_in_env("FACTLIB_KAFKA__PASSWORD_FILE", path);
        for part in [path, "kafka.password", "FACTLIB_KAFKA__PASSWORD_FILE", why] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }
    // Only secrets have files.
    let text = mistake_in_env("FACTLIB_KAFKA__USERNAME_FILE", "/nowhere");
    assert!(text.contains("is not a setting"), "{text}");
}

#[test]
fn files_with_secrets_that_everybody_can_read_are_named() {
    let exposed = |file: &str, mode, variables: &[(&str, &str)]| {
        let folder = folder(&[("factlib.toml", file), ("secret", "hunter2")]);
        let path = |name: &str| folder.path().join(name);
        for name in ["factlib.toml", "secret"] {
            std::fs::set_permissions(path(name), PermissionsExt::from_mode(mode)).expect("changed");
        }
        let secret = path("secret").display().to_string();
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| (*name, if *value == "secret" { &*secret } else { *value }))
            .collect();
        let loaded = Loader::new(folder.path()).env(env(&variables)).load().expect("valid");
        let name =
            |path: &PathBuf| path.file_name().expect("a file").to_string_lossy().into_owned();
        loaded.exposed.iter().map(name).collect::<Vec<_>>()
    };
    let user = ("KAFKA_USERNAME", "user");
    assert_eq!(exposed("kafka.password = \"p\"", 0o644, &[user]), ["factlib.toml"]);
    assert_eq!(exposed("kafka.password = \"p\"", 0o640, &[user]), [""; 0]);
    assert_eq!(exposed("postgres.url = \"postgresql://u:p@h/d\"", 0o644, &[]), ["factlib.toml"]);
    assert_eq!(exposed("postgres.url = \"postgresql://u@h/d\"", 0o644, &[]), [""; 0]);
    assert_eq!(exposed("", 0o644, &[user, ("KAFKA_PASSWORD_FILE", "secret")]), ["secret"]);
    let file = "kafka = {tls = true, tls_certificate = \"c\"}";
    let of_key = ["FACTLIB_KAFKA__TLS_KEY", "FACTLIB_KAFKA__PROPERTIES__SSL_KEY_LOCATION"];
    for variable in of_key {
        let file = match variable {
            "FACTLIB_KAFKA__TLS_KEY" => file,
            _ => {
                "[kafka.properties]\n\"security.protocol\" = \"ssl\"\n\"ssl.certificate.location\" = \"c\""
            }
        };
        assert_eq!(exposed(file, 0o644, &[(variable, "secret")]), ["secret"], "{variable}");
    }
}

#[test]
fn no_secret_is_shown_in_an_error() {
    for file in [
        "postgres.url = [\"hunter2\"]",
        "kafka.password = [\"hunter2\"]",
        "kafka.properties.\"sasl.password\" = [\"hunter2\"]",
        "kafka.passwrd = \"hunter2\"",
        "http.token = \"hunter2\"",
    ] {
        let text = mistake_in_file(file);
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("[redacted]") || text.starts_with("unknown"), "{text}");
    }
    for password in ["hunter2", "1/hunter2", "a@hunter2"] {
        let url = format!("schema_registry.url = [\"http://u:{password}@registry:8081\"]");
        let text = mistake_in_file(&url);
        assert!(text.contains("has credentials") && !text.contains("hunter2"), "{text}");
    }
    assert!(!mistake_in_env("FACTLIB_KAFKA__PASSWRD", "hunter2").contains("hunter2"));
    assert!(!mistake_in_flag("kafka.passwrd", "hunter2").contains("hunter2"));
    let loader = Loader::new("").flag("--set", "kafka.password", "hunter2");
    assert!(!format!("{loader:?}").contains("hunter2"));
    let loader = Loader::new("").env(env(&[("KAFKA_PASSWORD", "hunter2")]));
    assert!(!format!("{loader:?}").contains("hunter2"));
}

#[test]
fn a_password_command_is_a_text_or_a_list() {
    let folder = folder(&[]);
    let set = |value: &str| {
        Loader::new(folder.path()).flag("--set", "postgres.password_command", value).load()
    };
    let command = |value: &str| set(value).expect("valid").config.postgres.password_command;
    let list = ["/usr/bin/token", "for $PGUSER"].map(Into::into).to_vec();
    let shell = CommandLine::Shell("token | tail -n 1".into());
    assert_eq!(command("token | tail -n 1"), Some(shell));
    let program = Some(CommandLine::Program(list));
    assert_eq!(command("[\"/usr/bin/token\", \"for $PGUSER\"]"), program);
    let path = folder.path().join("factlib.toml");
    let file = "[postgres]\npassword_command = [\"/usr/bin/token\", \"for $PGUSER\"]";
    std::fs::write(&path, file).expect("written");
    let loader = Loader::new(folder.path());
    assert_eq!(loader.load().expect("valid").config.postgres.password_command, program);

    let both = loader.flag("--set", "postgres.password", "hunter2").load();
    let both = both.expect_err("refused").to_string();
    assert!(both.contains("is not run while postgres.password or its file is set"), "{both}");
    std::fs::write(&path, "postgres.password_command = 7").expect("written");
    let number = Loader::new(folder.path()).load().expect_err("refused").to_string();
    assert!(number.contains("expected a text for a shell, or a list of a program"), "{number}");
    std::fs::remove_file(&path).expect("removed");
    let nothing = set("[]").expect_err("refused").to_string();
    assert!(nothing.contains("must name a command to run"), "{nothing}");
}
