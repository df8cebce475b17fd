//! Keywords, hosts, defaults and errors of connection strings.

use secrecy::ExposeSecret;

use super::*;
use crate::{ErrorKind, settings::SslMode};

fn parse(text: &str) -> Result<ConnectInfo> {
    ConnectInfo::with_environment(text, &|_| None)
}

#[test]
fn a_url_and_pairs_mean_the_same() {
    let url = parse("postgresql://relay:secret@db.example:5433/shop?sslmode=verify-full").unwrap();
    let pairs = parse(
        "host=db.example port=5433 user=relay password=secret dbname=shop sslmode=verify-full",
    )
    .unwrap();
    for info in [url, pairs] {
        assert_eq!(info.describe(), "db.example:5433/shop");
        assert_eq!((info.user(), info.dbname()), ("relay", "shop"));
        assert_eq!(info.tls.mode, Some(SslMode::VerifyFull));
        assert!(!format!("{info:?}").contains("secret"));
    }
}

#[test]
fn hosts_and_ports_pair_up() {
    let describe = |text: &str| parse(text).map(|info| info.describe());
    assert_eq!(describe("postgresql://u@a:1,b:2/d").unwrap(), "a:1,b:2/d");
    assert_eq!(describe("host=a,b port=7 dbname=d").unwrap(), "a:7,b:7/d");
    assert_eq!(describe("host=a,b port=,7 dbname=d").unwrap(), "a:5432,b:7/d");
    assert_eq!(describe("host=a,b hostaddr=127.0.0.1,::1 dbname=d").unwrap(), "a:5432,b:5432/d");
    assert_eq!(describe("hostaddr=::1 dbname=d").unwrap(), "::1:5432/d");
    assert_eq!(describe("postgresql://u@[::1]:7/d").unwrap(), "[::1]:7/d");
    assert_eq!(describe("postgresql://u@%2Frun%2Fpg/d").unwrap(), "/run/pg:5432/d");
    for (text, keyword, reason) in [
        ("host=a,b,c port=1,2", "port", "lists 2 items for 3 hosts"),
        ("host=a,b hostaddr=::1", "hostaddr", "lists 1 items for 2 hosts"),
        ("host=a port=0", "port", "must be a number from 1 to 65535"),
        ("host=a port=x", "port", "must be a number from 1 to 65535"),
        ("hostaddr=a", "hostaddr", "must be an IPv4 or IPv6 address"),
        ("host=@a", "host", "in the abstract socket namespace is not supported"),
        ("host=a,b@c", "host", "has an @: write an @ in a password as %40"),
    ] {
        let error = describe(text).unwrap_err();
        let message = format!("{keyword} of the PostgreSQL connection string {reason}");
        assert!(error.to_string().starts_with(&message), "{error}");
    }
}

#[tokio::test]
async fn the_environment_fills_in_what_is_left_out() {
    let env = |name: &str| {
        let value = match name {
            "PGHOST" => "env.example",
            "PGUSER" => "env",
            "PGPASSWORD" => "hush",
            "PGSSLMODE" => "require",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let info = ConnectInfo::with_environment("user=relay", &env).unwrap();
    assert_eq!(info.describe(), "env.example:5432/relay");
    assert_eq!(info.tls.mode, Some(SslMode::Require));
    let password = info.password(&info.hosts[0]).await.unwrap().unwrap();
    assert_eq!(password.expose_secret(), "hush");
}

#[test]
fn a_service_fills_in_what_the_string_leaves_out_before_the_environment_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services");
    std::fs::write(&path, "[shop]\nhost=db.example\nuser=relay\ndbname=shop\n").unwrap();
    let path = path.display().to_string();
    let env = |name: &str| match name {
        "PGSERVICE" => Some("shop".to_owned()),
        "PGSERVICEFILE" => Some(path.clone()),
        "PGUSER" | "PGPORT" => Some("7".to_owned()),
        _ => None,
    };
    let info = ConnectInfo::with_environment("dbname=other", &env).unwrap();
    assert_eq!((info.describe().as_str(), info.user()), ("db.example:7/other", "relay"));
    let info = parse(&format!("service=shop servicefile={path}")).unwrap();
    assert_eq!((info.describe().as_str(), info.user()), ("db.example:5432/shop", "relay"));
    std::fs::write(&path, "[shop]\ncolour=red\n").unwrap();
    let error = parse(&format!("service=shop servicefile={path}")).unwrap_err();
    let message = "service shop of PostgreSQL's connection service file: colour of the ";
    assert!(error.to_string().starts_with(message), "{error}");
}

#[test]
fn what_may_be_the_end_of_a_password_is_not_repeated() {
    for text in ["password=a hunter2=b", "postgresql://u@h/d?password=a&hunter2=b"] {
        let error = parse(text).unwrap_err().to_string();
        let message = "what follows the password of the PostgreSQL connection string is unknown: \
                    a password with a space or a & in it is quoted, or %-encoded in a URL";
        assert!(error.starts_with(message) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_bad_value_is_named_and_a_secret_is_not() {
    for (text, expected) in [
        (
            "sslmode=on",
            "sslmode: must be one of disable, allow, prefer, require, verify-ca, verify-full",
        ),
        (
            "krbsrvname=pg",
            "krbsrvname: is not supported (leave it out: docs/configuration.md lists what is \
             taken)",
        ),
        ("load_balance_hosts=yes", "load_balance_hosts: must be one of disable, random"),
        (
            "ssl_min_protocol_version=1.2",
            "ssl_min_protocol_version: must be one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3",
        ),
        (
            "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
            "ssl_max_protocol_version: is lower than ssl_min_protocol_version",
        ),
        ("colour=red", "colour: is unknown or not supported (supported are host, hostaddr, "),
        (
            "target_session_attrs=x",
            "target_session_attrs: must be one of any, read-write, read-only, primary, \
             standby, prefer-standby",
        ),
        (
            "sslrootcert=system sslmode=require",
            "sslmode: must be verify-full with sslrootcert=system",
        ),
        (
            "sslnegotiation=direct sslmode=prefer",
            "sslmode: must be require, verify-ca or verify-full with sslnegotiation=direct",
        ),
        ("connect_timeout=soon", "connect_timeout: must be a whole number, 0 or more"),
        ("replication=database", "replication: is set where it is needed (leave it out)"),
        ("gssencmode=require", "gssencmode: must be one of disable, prefer"),
    ] {
        let error = parse(&format!("{text} password=secret")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        let said = error.to_string().replace(" of the PostgreSQL connection string", ":");
        assert!(said.starts_with(expected), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[test]
fn the_systems_trust_implies_verify_full() {
    for local in [true, false] {
        assert_eq!(parse("sslrootcert=system").unwrap().tls.mode(local), SslMode::VerifyFull);
    }
}

#[test]
fn a_certificate_is_verified_over_a_network_unless_sslmode_says_otherwise() {
    let mode = |text: &str, local| parse(text).unwrap().tls.mode(local);
    assert_eq!(mode("host=a", false), SslMode::VerifyFull);
    assert_eq!(mode("host=a sslmode=disable", false), SslMode::Disable);
    assert_eq!(mode("host=a", true), SslMode::Prefer);
}

#[tokio::test]
async fn a_command_is_asked_for_each_host_by_its_name() {
    let info = parse("host=a,b port=1,2 user=relay dbname=shop password=other").unwrap();
    let command = PasswordCommand::shell("echo $PGUSER@$PGHOST:$PGPORT/$PGDATABASE");
    let info = info.with_password_command(command);
    for (host, expected) in info.hosts.iter().zip(["relay@a:1/shop", "relay@b:2/shop"]) {
        let password = info.password(host).await.unwrap().unwrap();
        assert_eq!(password.expose_secret(), expected);
    }
    assert_eq!(info.changing_password().unwrap(), "that the password command printed");
}

#[test]
fn among_several_hosts_the_primary_is_looked_for_unless_the_string_says_otherwise() {
    let target = |text: &str| {
        let info = ConnectInfo::with_environment(text, &|_| None).expect("a connection string");
        info.with_default_target_primary().target
    };
    assert_eq!(target("host=a,b user=u"), TargetSessionAttrs::ReadWrite);
    assert_eq!(target("host=a user=u"), TargetSessionAttrs::Any);
    assert_eq!(target("host=a,b user=u target_session_attrs=any"), TargetSessionAttrs::Any);
    let standby = target("host=a,b user=u target_session_attrs=standby");
    assert_eq!(standby, TargetSessionAttrs::Standby);
}
