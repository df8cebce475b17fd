//! Recognises services by fake hosts, settings and roles; holds docs/postgresql.md against the table.

use std::{env, fs, path::Path};

use super::*;

fn recognised(hosts: &str, settings: &[&str], roles: &[&str]) -> Option<&'static str> {
    let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let evidence = Evidence { hosts: hosts.into(), settings: texts(settings), roles: texts(roles) };
    Some(evidence.service()?.name)
}

#[test]
fn a_service_is_recognised_by_any_of_its_marks() {
    for (hosts, settings, roles, service) in [
        ("db.example:5432", &[][..], &[][..], None),
        ("db.abc.eu-west-1.rds.amazonaws.com:5432", &[], &[], Some("Amazon RDS")),
        ("10.0.0.1:5432", &["rds.logical_replication"], &["rds_superuser"], Some("Amazon RDS")),
        (
            "10.0.0.1:5432",
            &["rds.extensions", "apg_plan_mgmt.max_plans"],
            &["rds_superuser"],
            Some("Amazon Aurora"),
        ),
        ("/cloudsql/p:r:i:5432", &["cloudsql.logical_decoding"], &[], Some("Google Cloud SQL")),
        ("10.0.0.1:5432", &[], &["cloudsqlsuperuser"], Some("Google Cloud SQL")),
        (
            "a:1,Shop.postgres.database.azure.com:5432",
            &[],
            &[],
            Some("Azure Database for PostgreSQL"),
        ),
        (
            "10.0.0.1:5432",
            &["azure.extensions"],
            &["azure_pg_admin"],
            Some("Azure Database for PostgreSQL"),
        ),
        ("ep-cool-123.eu-central-1.aws.neon.tech:5432", &[], &[], Some("Neon")),
        ("localhost:5432", &["neon.timeline_id"], &["neon_superuser"], Some("Neon")),
        ("db.abc.supabase.co:5432", &[], &[], Some("Supabase")),
        ("localhost:5432", &[], &["supabase_admin"], Some("Supabase")),
        ("p.abc.db.postgresbridge.com:5432", &[], &[], Some("Crunchy Bridge")),
        ("pg-1.aivencloud.com:12691", &[], &["avnadmin"], Some("Aiven")),
        // A proxy's name is weaker than what the server says.
        ("pg-1.aivencloud.com:12691", &["neon.tenant_id"], &[], Some("Neon")),
        ("rds.amazonaws.com.example:5432", &[], &[], None),
    ] {
        assert_eq!(recognised(hosts, settings, roles), service, "{hosts} {settings:?} {roles:?}");
    }
}

#[test]
fn the_endpoint_of_a_pooler_is_named_with_the_servers_own() {
    for (hosts, remedy) in [
        (
            "ep-cool-123-pooler.eu-central-1.aws.neon.tech:5432",
            "Neon's pooler, which does not pass replication on: leave -pooler out",
        ),
        ("aws-0-eu-central-1.pooler.supabase.com:6543", "Supabase's pooler"),
        ("shop.proxy-abc.eu-west-1.rds.amazonaws.com:5432", "an RDS Proxy"),
        ("shop.postgres.database.azure.com:6432", "Azure's PgBouncer"),
    ] {
        let found = pooler_remedy(hosts).unwrap_or_default();
        assert!(found.contains(remedy), "{hosts}: {found}");
    }
    for hosts in
        ["shop.postgres.database.azure.com:5432", "ep-cool-123.aws.neon.tech:5432", "db:6432"]
    {
        assert_eq!(pooler_remedy(hosts), None, "{hosts}");
    }
}

#[test]
fn remedies_are_those_of_the_service() {
    let service =
        |name| SERVICES.iter().find(|service| service.name == name).expect("in the table");
    let rds = service("Amazon RDS");
    assert_eq!(rds.replication("Relay"), "GRANT rds_replication TO \"Relay\"");
    let remedy = setting_remedy(Some(rds), "max_wal_senders", 20);
    assert_eq!(
        remedy,
        "set max_wal_senders = 20 in the DB parameter group, and reboot the instance"
    );
    let remedy = setting_remedy(None, "max_wal_senders", 20);
    assert_eq!(remedy, "ALTER SYSTEM SET max_wal_senders = 20; restart PostgreSQL");
}

/// The table of services, as in docs/postgresql.md.
fn table() -> String {
    let mut table = String::from(
        "| service | logical replication | role | slots | login with tokens |\n| --- | --- | --- | --- | --- |\n",
    );
    for service in &SERVICES {
        let Service { name, wal_level, replication, slots, source, .. } = service;
        let tokens = match &service.tokens {
            Some(Tokens { needs, command }) => format!("`{command}`; needs {needs}"),
            None => "–".into(),
        };
        let replication = replication.replace("{role}", "relay");
        table += &format!(
            "| [{name}]({source}) | {wal_level} | `{replication}` | {slots} | {tokens} |\n"
        );
    }
    table
}

#[test]
fn the_page_has_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/postgresql.md");
    let page = fs::read_to_string(&path).expect("docs/postgresql.md");
    let begin = page.find("| service | logical").expect("the page has the table");
    let (before, rest) = page.split_at(begin);
    let end = rest.find("\n\n").map_or(rest.len(), |end| end + 1);
    let (written, after) = rest.split_at(end);
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{before}{}{after}", table())).expect("written");
    } else {
        let update = "UPDATE_DOCS=1 cargo test --lib the_page_has_the_table";
        assert_eq!(written, table(), "docs/postgresql.md is out of date: run `{update}`");
    }
}
