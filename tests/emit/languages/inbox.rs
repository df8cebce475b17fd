//! The consumers of `docs/consuming.md`: with the inbox, an event that comes twice is handled once.

use factlib::testing::shared_postgres;

use super::{blocks, programs::consuming};
use crate::support::repository::read;

#[tokio::test]
async fn an_event_that_comes_twice_is_handled_once_in_each_language() {
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let database = postgres.create_database("inbox_languages").await.expect("a database");
    let client = postgres.connect(&database).await.expect("a session");
    client.batch_execute(&read("crates/factlib-inbox/src/inbox.sql")).await.expect("the inbox");
    client.batch_execute("CREATE TABLE mails (handled_by text)").await.expect("a table");
    let blocks = blocks("docs/consuming.md", "inbox.rs");
    assert_eq!(blocks.len(), 4, "one for each language");
    for (language, block) in blocks {
        let id = format!("01a20d6f-7f41-7100-929c-{language:?}");
        let program = consuming(language, &block, &id);
        let runs = language.run(&program, &postgres.url_for(&database)).await;
        let rows = client.query("DELETE FROM mails RETURNING 1", &[]).await.expect("rows");
        assert_eq!(rows.len(), usize::from(runs), "{language:?}");
        let kept = "SELECT count(*) FROM factlib.inbox WHERE consumer = 'mail' AND event_id = $1";
        let kept: i64 = client.query_one(kept, &[&id]).await.expect("a count").get(0);
        assert_eq!(kept, i64::from(runs), "{language:?}");
    }
}
