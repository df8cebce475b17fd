//! Pause, resume and redrive, by clicks with the token; and who is turned away.

use factlib::{
    config::{Compression, Config, KafkaClient},
    emit::Fact,
    testing::{fake_broker::FakeCluster, shared_postgres, wait_for_count},
};

use uuid::Uuid;

use super::{LIMIT, TOKEN, ask, browser::Browser, emit, facts, serve, status};
use crate::support::Bed;

const PAUSE: &str = "#topics [data-topic$='.order'] button";

#[actix_rt::test]
async fn clicks_pause_resume_and_redrive_once_the_token_is_given() {
    let mut bed = Bed::shared("controls").await;
    // What is too large for a topic stays it.
    bed.config.kafka.compression = Compression::None;
    let url = serve(&mut bed.config);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut client = bed.client().await;
    let topic = format!("{}.order", bed.name);
    emit(&mut client, &bed.config, facts("order", 3)).await;
    let mut browser = Browser::start().await;
    browser.open(&url).await;
    browser.until(&format!("document.querySelector({PAUSE:?})?.textContent === 'Pause'")).await;
    browser.until("document.querySelector('[data-field=events]').dataset.value === '3'").await;

    browser.click(PAUSE).await;
    browser.until("document.querySelector('#token-dialog').open").await;
    browser.write("not the token of this relay").await;
    browser.press("Enter").await;
    browser.until("document.querySelector('#token-error').textContent === 'wrong token'").await;
    browser.value("document.querySelector('#token').value = ''").await;
    browser.write(&TOKEN.replace(' ', "-")).await;
    browser.press("Enter").await;
    browser.until(&format!("document.querySelector({PAUSE:?}).textContent === 'Resume'")).await;
    assert!(pipeline.status().topics[&topic].paused);
    browser.until("!document.querySelector('#token-dialog').open").await;

    emit(&mut client, &bed.config, facts("order", 4)).await;
    browser
        .until(&format!(
            "document.querySelector(\"#flow [data-place='topic:{topic}']\").dataset.waiting === '4'"
        ))
        .await;
    browser
        .until(&format!("document.querySelector('#headline').textContent === 'Paused: {topic}'"))
        .await;
    assert_eq!(pipeline.status().topics[&topic].events, 3);
    browser.click(PAUSE).await;
    browser.until(&format!("document.querySelector({PAUSE:?}).textContent === 'Pause'")).await;
    let bootstrap = bed.kafka.admin_bootstrap();
    wait_for_count(&bootstrap, &[&topic], 7, LIMIT).await.expect("what was held back arrives");

    // A dead letter: too large for the topic, which then takes it.
    bed.set_limit(&topic, "1000").await;
    let id = Uuid::now_v7();
    let large = Fact::new("order", "7", "order.placed").id(id).payload("x".repeat(5_000));
    emit(&mut client, &bed.config, [large]).await;
    browser
        .until("document.querySelector('[data-field=dead_letters]').dataset.value === '1'")
        .await;
    browser.until("document.querySelectorAll('#letters li').length === 1").await;
    let letter = browser.text("#letters li").await;
    assert!(letter.contains("order 7") && !letter.contains("xxxx"), "{letter}");
    // Found by its id, and redriven from there.
    bed.set_limit(&topic, "100000").await;
    browser.value("document.querySelector('#query').focus()").await;
    browser.write(&id.to_string()).await;
    browser.press("Enter").await;
    browser.until("document.querySelectorAll('#found li').length === 1").await;
    let found = browser.text("#found li").await;
    assert!(found.contains(&topic) && found.contains("MESSAGE_TOO_LARGE"), "{found}");
    browser.click("#found button").await;
    browser.until("document.querySelector('#confirm-dialog').open").await;
    browser.press("Escape").await;
    browser.until("!document.querySelector('#confirm-dialog').open").await;
    assert_eq!(browser.text("#redrive-result").await, "", "nothing without consent");
    browser.click("#found button").await;
    browser.click("#confirm-yes").await;
    browser
        .until("document.querySelector('#redrive-result').matches('[data-running=false]') && document.querySelector('#redrive-result').textContent.includes(': 1 redriven')")
        .await;
    wait_for_count(&bootstrap, &[&topic], 8, LIMIT).await.expect("the letter arrives");
    browser
        .until("document.querySelector('#found .redriven').textContent.startsWith('Redriven ')")
        .await;
    assert_eq!(browser.value("document.querySelector('#found button').hidden").await, true);
    // What was redriven is not again.
    browser.click("#redrive").await;
    browser.click("#confirm-yes").await;
    browser.until("document.querySelector('#redrive-result').textContent.includes(': 0 redriven, 1 before')").await;

    let kept = "JSON.stringify([sessionStorage.length, localStorage.length, document.cookie])";
    assert_eq!(browser.value(kept).await, r#"[1,0,""]"#);
    browser.click("#unlock").await;
    assert_eq!(browser.value(kept).await, r#"[0,0,""]"#);
    // The wrong token is one, and meant.
    assert_eq!(browser.complaints(&["401 (Unauthorized)"]).await, [""; 0]);
    pipeline.shutdown().await.expect("all is delivered");
}

#[actix_rt::test]
async fn who_has_no_token_or_comes_from_elsewhere_changes_nothing() {
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let broker = FakeCluster::start().await.expect("a fake broker");
    broker.create_topic("factlib.order", 1).expect("a topic");
    let mut config = Config::default();
    let database = postgres.create_database("page_http").await.expect("a database");
    config.postgres.url = postgres.url_for(&database).into();
    config.postgres.slot = database.clone();
    config.kafka.brokers = vec![broker.bootstrap()];
    config.kafka.client = KafkaClient::Pipelined;
    let url = serve(&mut config);
    let pipeline = factlib::Pipeline::builder().config(config.clone()).start().await.expect("up");
    let mut client = postgres.connect(&database).await.expect("a session");
    emit(&mut client, &config, facts("order", 1)).await;
    while status(&url).await["events"] != 1 {}

    let token = format!("Authorization: Bearer {}", TOKEN.replace(' ', "-"));
    let body = r#"{"topic":"factlib.order"}"#;
    let kind = "Content-Type: application/json";
    for (headers, code) in [
        (vec![kind], 401),
        (vec![kind, "Authorization: Bearer a-token-of-the-tesst"], 401),
        (vec![kind, "Authorization: Bearer "], 401),
        (vec![kind, &token, "Sec-Fetch-Site: cross-site"], 403),
        (vec![kind, &token, "Sec-Fetch-Site: same-site"], 403),
        (vec![kind, &token, "Host: evil.example"], 403),
    ] {
        for action in ["pause", "redrive"] {
            let (got, _, _) = ask(&url, &format!("POST /controls/{action}"), &headers, body).await;
            assert_eq!(got, code, "{action} {headers:?}");
        }
    }
    assert!(!pipeline.status().topics["factlib.order"].paused);
    for path in ["/", "/events", "/status.json", "/metrics"] {
        let (code, _, _) = ask(&url, &format!("GET {path}"), &["Host: evil.example"], "").await;
        assert_eq!(code, 403, "{path}");
    }
    let (code, ..) = ask(&url, "GET /controls/pause", &[&token], "").await;
    assert!((404..=405).contains(&code), "only POST changes: {code}");
    let unknown = r#"{"topic":"factlib.nothing"}"#;
    let (code, ..) = ask(&url, "POST /controls/pause", &[kind, &token], unknown).await;
    assert_eq!(code, 404);
    let (code, _, answer) = ask(&url, "POST /controls/pause", &[kind, &token], body).await;
    assert_eq!(code, 200, "{answer}");
    assert!(pipeline.status().topics["factlib.order"].paused);
    assert!(!answer.contains(&TOKEN.replace(' ', "-")), "{answer}");
    let (code, head, _) = ask(&url, "GET /", &[], "").await;
    assert_eq!(code, 200);
    assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
    assert!(!head.contains("unsafe"), "{head}");
    pipeline.resume_topic("factlib.order").expect("known");
    pipeline.shutdown().await.expect("all is delivered");
}

#[actix_rt::test]
async fn without_a_token_the_controls_are_off_and_the_page_says_how_to_turn_them_on() {
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let broker = FakeCluster::start().await.expect("a fake broker");
    broker.create_topic("factlib.order", 1).expect("a topic");
    let mut config = Config::default();
    let database = postgres.create_database("page_off").await.expect("a database");
    config.postgres.url = postgres.url_for(&database).into();
    config.postgres.slot = database.clone();
    config.kafka.brokers = vec![broker.bootstrap()];
    config.kafka.client = KafkaClient::Pipelined;
    let url = serve(&mut config);
    config.http.token = None;
    let pipeline = factlib::Pipeline::builder().config(config.clone()).start().await.expect("up");
    let mut client = postgres.connect(&database).await.expect("a session");
    emit(&mut client, &config, facts("order", 1)).await;
    let mut browser = Browser::start().await;
    browser.open(&url).await;
    browser.until("document.querySelectorAll('#topics tbody tr').length === 1").await;
    let hint = browser.text("#controls-text").await;
    assert!(hint.contains("http.token"), "{hint}");
    let buttons = "[...document.querySelectorAll('main button:not(#search-button)')].filter((button) => button.checkVisibility()).length";
    assert_eq!(browser.value(buttons).await, 0);
    let (code, _, answer) =
        ask(&url, "POST /controls/redrive", &["Authorization: Bearer "], "").await;
    assert_eq!(code, 403, "{answer}");
    pipeline.shutdown().await.expect("all is delivered");
}
