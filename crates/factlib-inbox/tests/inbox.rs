//! The promises of an inbox, on a real PostgreSQL: each event is handled once, whatever happens.

use std::time::Duration;

use factlib_inbox::{Inbox, SCHEMA};
use factlib_testing::{PostgresServer, shared_postgres};
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

async fn with_inbox(name: &str) -> (&'static PostgresServer, String, Client) {
    let server = shared_postgres().await.expect("PostgreSQL starts");
    let database = server.create_database(name).await.expect("a database");
    let client = server.connect(&database).await.expect("a session");
    for _ in 0..2 {
        client.batch_execute(SCHEMA).await.expect("it may run again");
    }
    (server, database, client)
}

/// Delivers an event in a transaction of its own, which is committed.
async fn deliver(client: &mut Client, inbox: &Inbox, event_id: &str) -> bool {
    let transaction = client.transaction().await.expect("begun");
    let first = inbox.first_delivery(&transaction, event_id).await.expect("an answer");
    transaction.commit().await.expect("committed");
    first
}

#[tokio::test]
async fn an_event_is_handled_once_by_each_consumer() {
    let (_, _, mut client) = with_inbox("inbox_once").await;
    let (mail, search) = (Inbox::new("mail"), Inbox::new("search"));
    assert!(deliver(&mut client, &mail, "e1").await);
    assert!(!deliver(&mut client, &mail, "e1").await);
    assert!(deliver(&mut client, &mail, "e2").await);
    assert!(deliver(&mut client, &search, "e1").await);
}

/// An index takes some 2,700 bytes.
#[tokio::test]
async fn ids_that_no_index_takes_are_told_apart() {
    let (_, _, mut client) = with_inbox("inbox_long").await;
    let inbox = Inbox::new("mail");
    // Noise, which PostgreSQL can't compress.
    let noise: String = (0..2_000_u32)
        .map(|n| {
            char::from_u32(0x4e00 + n.wrapping_mul(2_654_435_761) % 20_000).expect("a character")
        })
        .collect();
    for end in ["a", "b"] {
        let id = format!("{noise}{end}");
        assert!(deliver(&mut client, &inbox, &id).await);
        assert!(!deliver(&mut client, &inbox, &id).await);
    }
}

#[tokio::test]
async fn an_event_whose_transaction_was_rolled_back_is_handled_again() {
    let (_, _, mut client) = with_inbox("inbox_again").await;
    let inbox = Inbox::new("mail");
    let transaction = client.transaction().await.expect("begun");
    assert!(inbox.first_delivery(&transaction, "e1").await.expect("an answer"));
    transaction.rollback().await.expect("rolled back");
    assert!(deliver(&mut client, &inbox, "e1").await);
}

#[tokio::test]
async fn of_two_at_once_one_handles_it() {
    let (server, database, mut client) = with_inbox("inbox_two").await;
    let mut other = server.connect(&database).await.expect("a session");
    let inbox = Inbox::new("mail");
    for first_commits in [true, false] {
        let event_id = format!("commits: {first_commits}");
        let first = client.transaction().await.expect("begun");
        assert!(inbox.first_delivery(&first, &event_id).await.expect("an answer"));
        let mut second = Box::pin(deliver(&mut other, &inbox, &event_id));
        let early = timeout(Duration::from_millis(200), &mut second).await;
        assert!(early.is_err(), "it waits for the first");
        match first_commits {
            true => first.commit().await.expect("committed"),
            false => first.rollback().await.expect("rolled back"),
        }
        assert_eq!(second.await, !first_commits);
    }
}

#[tokio::test]
async fn old_ids_are_forgotten_and_no_others() {
    let (_, _, mut client) = with_inbox("inbox_old").await;
    let (mail, search) = (Inbox::new("mail"), Inbox::new("search"));
    let old = "INSERT INTO factlib.inbox
               SELECT 'mail', 'old' || n, now() - interval '1 day' FROM generate_series(1, 10001) n";
    client.batch_execute(old).await.expect("inserted");
    for inbox in [&mail, &search] {
        assert!(deliver(&mut client, inbox, "new").await);
    }
    sleep(Duration::from_millis(5)).await;
    let hour = Duration::from_secs(3_600);
    assert_eq!(search.forget(&client, hour).await.expect("an answer"), 0);
    assert_eq!(mail.forget(&client, hour).await.expect("an answer"), 10_001);
    assert!(!deliver(&mut client, &mail, "new").await);
    assert!(deliver(&mut client, &mail, "old1").await);
    assert_eq!(search.forget(&client, Duration::ZERO).await.expect("an answer"), 1);
}
