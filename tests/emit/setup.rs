use std::process::Command;

use factlib::testing::shared_postgres;

#[tokio::test]
async fn setup_makes_what_services_need_and_may_be_run_again() {
    let server = shared_postgres().await.expect("PostgreSQL starts");
    let database = server.create_database("setup").await.expect("a database");
    let setup = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_factlib"));
        // For the server of the tests, and no setting.
        command.env_remove("FACTLIB_PG_BIN");
        command.args(["setup", "--postgres-url", &server.url_for(&database), "--slot", &database]);
        let output = command.args(more).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    for _ in 0..2 {
        let said = setup(&["--outbox-table=sales.outbox", "--sql-functions"]);
        assert!(said.contains("outbox table: sales.outbox\nSQL functions: installed"), "{said}");
    }
    let query = "SELECT (count(*) = 0 AND to_regproc('factlib.emit_batch') IS NOT NULL)::text FROM sales.outbox";
    assert_eq!(server.query_text(&database, query).await.expect("an answer"), "true");
    let sql = setup(&["--outbox-table", "--sql-functions", "--dry-run"]);
    assert!(sql.contains(r#"CREATE TABLE IF NOT EXISTS "public"."outbox_events""#), "{sql}");
    assert!(sql.contains("FUNCTION factlib.emit_batch"), "{sql}");
}
