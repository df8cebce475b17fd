//! The example does what it says, and the README shows the example.

use super::Database;

#[path = "../../examples/emit.rs"]
#[allow(dead_code)] // Its main.
mod program;

#[tokio::test]
async fn the_example_makes_a_user_and_a_fact() {
    let database = Database::create("example").await;
    let mut client = factlib::postgres::sql::connect_url(&database.url().await).await.unwrap();
    client.batch_execute("CREATE TABLE users (id text PRIMARY KEY, name text)").await.unwrap();
    let id = program::create_user(&mut client).await.expect("created");
    let events = database.events("factlib").await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        (&events[0].id, &events[0].payload[..]),
        (&id.to_string(), &br#"{"name":"Ada"}"#[..])
    );
    // The row is there: neither it nor its fact can be made again.
    program::create_user(&mut client).await.expect_err("taken");
    assert!(database.events("factlib").await.is_empty());
}

#[test]
fn the_readme_shows_the_example() {
    let example = include_str!("../../examples/emit.rs");
    let start = example.find("async fn create_user").expect("the function");
    let end = start + example[start..].find("\n}\n").expect("its end");
    assert!(include_str!("../../README.md").contains(&example[start..end]));
}
