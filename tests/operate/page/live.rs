//! What the page shows is what `/status.json` says: while all goes well, while a real
//! broker is away, and after it is back.

use std::{path::PathBuf, time::Duration};

use factlib::testing::{KafkaServer, shared_postgres};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{LIMIT, browser::Browser, emit, facts, serve, status};
use crate::support::Bed;

const KINDS: [&str; 3] = ["order", "payment", "user"];

/// Every number and name of the status that the page shows, as text.
const SHOWN: &str = "JSON.stringify([...document.querySelectorAll('[data-field]')].map((shown) => [shown.dataset.field, shown.dataset.value]))";
const SHOWN_TOPICS: &str = "JSON.stringify([...document.querySelectorAll('#topics tbody tr')].map((row) => [row.dataset.topic, ...[...row.querySelectorAll('[data-value]')].map((cell) => Number(cell.dataset.value))]))";

/// Waits until the page shows what the relay says, and that is what we look for.
async fn shows_the_status(browser: &mut Browser, url: &str) {
    let mut last = String::new();
    let fits = async {
        loop {
            let status = status(url).await;
            let topics = status["topics"].as_object().expect("topics");
            let numbers = |(name, topic): (&String, &serde_json::Value)| {
                serde_json::json!([name, topic["events"], topic["waiting"], topic["restarts"]])
            };
            let topics = serde_json::to_string(&topics.iter().map(numbers).collect::<Vec<_>>());
            let shown = browser.value(SHOWN).await;
            let shown: Vec<(String, String)> =
                serde_json::from_str(shown.as_str().expect("text")).expect("pairs");
            assert!(shown.len() > 10, "{shown:?}");
            let differs = shown.iter().find(|(field, value)| match &status[field.as_str()] {
                serde_json::Value::String(text) => text != value,
                other => &other.to_string() != value,
            });
            let shown_topics = browser.value(SHOWN_TOPICS).await;
            if differs.is_none() && shown_topics.as_str() == topics.as_deref().ok() {
                return;
            }
            last = format!("{differs:?}, {shown_topics}, of {status}");
            sleep(Duration::from_millis(100)).await;
        }
    };
    let shown = timeout(LIMIT, fits).await;
    assert!(shown.is_ok(), "the page and status.json differ: {last}");
}

/// Where `make screenshots` wants its pictures.
fn pictures() -> Option<PathBuf> {
    std::env::var_os("FACTLIB_SCREENSHOTS").map(Into::into)
}

#[actix_rt::test]
async fn the_page_shows_what_the_relay_says_also_while_kafka_is_away() {
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let kafka = KafkaServer::start().await.expect("Kafka starts");
    let mut bed = Bed::on(postgres, &kafka, "page").await;
    bed.config.postgres.message_prefix = "shop".into();
    bed.config.postgres.slot = "shop".into();
    let url = serve(&mut bed.config);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut browser = Browser::start().await;
    browser.open(&url).await;
    browser.until("document.body.dataset.connection === 'live'").await;
    assert_eq!(
        browser.text("#topics-empty").await,
        "No topic yet: one appears with its first event."
    );

    let mut client = bed.client().await;
    for kind in KINDS {
        emit(&mut client, &bed.config, facts(kind, 40)).await;
    }
    browser.until("document.querySelector('[data-field=events]').dataset.value === '120'").await;
    shows_the_status(&mut browser, &url).await;
    assert_eq!(browser.text("#flow [data-place='topic:shop.order'] .detail").await, "40 delivered");
    let rows = browser.value("document.querySelectorAll('#events tbody tr').length").await;
    assert_eq!(rows, 50);
    browser
        .until("document.querySelector('#headline').textContent === 'Everything is delivered'")
        .await;
    let load = Load::start(&bed, &mut browser).await;

    kafka.stop(1).await.expect("the broker stops");
    load.emit_some(&mut client, &bed).await;
    browser.until("document.querySelector('#kafka').dataset.blocked === 'true'").await;
    browser.until("document.querySelector('#headline').textContent === 'Waiting for Kafka'").await;
    browser.until("document.querySelector('#errors [data-place=kafka]')").await;
    load.stop().await;
    shows_the_status(&mut browser, &url).await;
    let said = status(&url).await;
    let error = said["kafka_error"].as_str().expect("what Kafka's client complains of");
    browser.until(&format!("document.querySelector('#cause').textContent === {error:?}")).await;
    let state = browser.text("#topics [data-topic='shop.order'] .word").await;
    assert_eq!(state, "Waiting for Kafka");
    if let Some(folder) = pictures() {
        browser.look(1280, 900, "dark").await;
        browser.picture(&folder.join("page-kafka-away.png"), ".pair").await;
        browser.look(1280, 900, "light").await;
    }

    kafka.start_again(1).await.expect("the broker starts again");
    browser
        .until("document.querySelector('#headline').textContent === 'Everything is delivered'")
        .await;
    browser.until("document.querySelectorAll('#flow [data-blocked=true]').length === 0").await;
    shows_the_status(&mut browser, &url).await;
    assert_eq!(status(&url).await["topics"]["shop.order"]["waiting"], 0);

    // What was, is there after a reload too.
    browser.open(&url).await;
    browser.until("/at most [1-9].*in the last/.test(document.querySelector('#rate-chart svg').getAttribute('aria-label'))").await;
    browser.until("/at most [1-9].*in the last/.test(document.querySelector('#lag-chart svg').getAttribute('aria-label'))").await;
    browser.until("document.querySelector('#errors [data-place=kafka]')").await;
    assert_eq!(browser.complaints(&[]).await, [""; 0]);

    pipeline.shutdown().await.expect("all is delivered");
    drop(pipeline);
    browser.until("document.body.dataset.connection === 'lost'").await;
    let said = browser.text("#connection-text").await;
    assert!(said.starts_with("No connection since "), "{said}");
}

/// Facts all the while, for pictures; without these, a few.
struct Load {
    stop: CancellationToken,
    task: Option<actix_rt::task::JoinHandle<()>>,
}

impl Load {
    async fn start(bed: &Bed<'_>, browser: &mut Browser) -> Self {
        let stop = CancellationToken::new();
        let Some(folder) = pictures() else { return Load { stop, task: None } };
        let (mut client, config, stopped) = (bed.client().await, bed.config.clone(), stop.clone());
        let task = actix_rt::spawn(async move {
            for round in 0_u64.. {
                let kind = KINDS[(round % 3) as usize];
                emit(&mut client, &config, facts(kind, 5 + round % 7)).await;
                tokio::select! {
                    () = stopped.cancelled() => return,
                    () = sleep(Duration::from_millis(20)) => {}
                }
            }
        });
        // A picture of charts needs a minute of them.
        sleep(Duration::from_secs(75)).await;
        browser.picture(&folder.join("page.png"), ".pair").await;
        browser.look(360, 780, "dark").await;
        browser.picture(&folder.join("page-phone.png"), "#flow [data-place=router]").await;
        browser.look(1280, 900, "light").await;
        Load { stop, task: Some(task) }
    }

    /// Facts that wait; for a picture, for a while.
    async fn emit_some(&self, client: &mut tokio_postgres::Client, bed: &Bed<'_>) {
        emit(client, &bed.config, facts("order", 30)).await;
        if self.task.is_some() {
            sleep(Duration::from_secs(15)).await;
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        if let Some(task) = self.task {
            task.await.expect("the emitter ends");
        }
    }
}
