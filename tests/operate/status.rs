//! `factlib status` beside a running relay.

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};

use super::desk::{Desk, value};
use crate::support::terminal::{SOON, stop};

#[tokio::test]
async fn status_says_what_the_relay_says() {
    let desk = Desk::new().await;
    let away = desk.refuses("factlib status", 1).await;
    assert!(away.contains("no relay answers") && away.contains("http.metrics_port"), "{away}");
    let relay = desk.folder.relay().await;
    desk.emit(1).await;
    // The acknowledgement may come behind what a reader of the topic sees.
    let counted = async {
        while !value(&desk.done("factlib status").await, "events").starts_with("1 delivered") {}
    };
    timeout(SOON, counted).await.expect("it is counted");
    let text = desk.done("factlib status").await;
    assert_eq!(value(&text, "state"), "running");
    assert!(value(&text, "in flight").ends_with("of 16.0 MiB"), "{text}");
    let topic = format!("{}.user", desk.name);
    let row: Vec<_> = value(&text, &topic).split_whitespace().collect();
    assert_eq!((&row[..2], row[3]), (&["open", "1"][..], "0"), "{text}");
    assert_eq!(&row[row.len() - 2..], ["0", "none"], "{text}");
    assert!(value(&text, "lag").contains(" of WAL, 0 events, "), "{text}");
    assert!(value(&text, "wal_reader").starts_with("running"), "{text}");
    let json = desk.done(&format!("factlib status --json --url 127.0.0.1:{}/", desk.port)).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["state"], &json["topics"][&topic]["events"]), (&"running".into(), &1.into()));

    let mut watch = desk.folder.command("factlib status --watch=1").spawn().expect("it starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let rate = async {
        while let Some(line) = lines.next_line().await.expect("UTF-8") {
            if line.starts_with("rate") {
                return line.ends_with(" events/s");
            }
        }
        false
    };
    assert!(timeout(SOON, rate).await.expect("a second reading"));
    let healthy =
        desk.done(&format!("factlib status --health --url 127.0.0.1:{}", desk.port)).await;
    assert_eq!(healthy, "healthy\n");
    stop(relay).await;
    let no_health = format!("factlib status --health --url 127.0.0.1:{}", desk.port);
    let no_health = desk.refuses(&no_health, 1).await;
    assert!(
        no_health.contains("no relay answers") && no_health.contains("/healthz"),
        "{no_health}"
    );
    let no_status = desk.refuses(&format!("factlib status --url 127.0.0.1:{}", desk.port), 1).await;
    assert!(no_status.contains("no relay answers"), "{no_status}");
}
