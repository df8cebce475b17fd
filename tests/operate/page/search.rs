//! Finding a dead letter by id or by name, over HTTP and on the page.

use factlib::{Pipeline, emit::Fact, testing::shared_postgres};
use serde_json::Value;
use uuid::Uuid;

use super::{ask, browser::Browser, emit, manners::Scene, serve, status};

/// The letters that a search finds.
async fn find(url: &str, text: &str) -> Value {
    let (code, head, body) = ask(url, &format!("GET /dead-letters?q={text}"), &[], "").await;
    assert_eq!(code, 200, "{body}");
    assert!(head.contains("application/json"), "{head}");
    serde_json::from_str(&body).expect("JSON")
}

#[actix_rt::test]
async fn a_letter_is_found_by_its_id_and_by_names_and_nothing_else_is_claimed() {
    let mut scene = Scene::new("page_search").await;
    let url = serve(&mut scene.config);
    let pipeline = Pipeline::builder().config(scene.config.clone()).start().await.expect("up");
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let mut client = postgres.connect(&scene.database).await.expect("a session");
    let letters = [("dead-letter", "K-1"), ("dead-letter", "K-2"), ("checkpoints", "K-3")];
    let ids = letters.map(|_| Uuid::now_v7());
    let facts = letters.iter().zip(ids);
    let facts = facts.map(|((kind, of), id)| Fact::new(*kind, *of, "thing.Happened").id(id));
    let ids = ids.map(|id| id.to_string());
    // Names of the relay's own topics: no event may go there.
    emit(&mut client, &scene.config, facts).await;
    scene.emit().await;
    while status(&url).await["topics"]["factlib.dead-letter"]["events"] != 3 {}

    let found = find(&url, &ids[1]).await;
    assert_eq!((&found["matching"], &found["searched"]), (&1.into(), &3.into()), "{found}");
    assert_eq!((&found["complete"], &found["exists"]), (&true.into(), &true.into()), "{found}");
    let letter = &found["letters"][0];
    assert_eq!(letter["event_id"], *ids[1], "{letter}");
    assert_eq!(
        (&letter["aggregate_type"], &letter["aggregate_id"]),
        (&"dead-letter".into(), &"K-2".into())
    );
    assert_eq!(
        (&letter["event_type"], &letter["redriven_ms"]),
        (&"thing.Happened".into(), &Value::Null)
    );
    assert!(letter["error"].as_str().is_some_and(|why| why.contains("dead-letter")), "{letter}");
    // An id is found whole only, a name in part.
    assert_eq!(find(&url, &ids[1][..12]).await["matching"], 0);
    for (text, count) in [("", 3), ("DEAD-Let", 2), ("k-3", 1), ("happened", 3), ("K-9", 0)] {
        assert_eq!(find(&url, text).await["matching"], count, "{text}");
    }

    let mut browser = Browser::start().await;
    browser.open(&url).await;
    browser.until("document.querySelector('#search').checkVisibility()").await;
    browser.value("document.querySelector('#query').focus()").await;
    browser.write("00000000-unknown").await;
    browser.press("Enter").await;
    let result = "document.querySelector('#search-result').textContent";
    browser.until(&format!("{result}.startsWith('No dead letter matches')")).await;
    let hint = browser.text("#search-hint").await;
    assert!(hint.contains("keeps no list of delivered events"), "{hint}");
    browser.value("document.querySelector('#query').value = ''").await;
    browser.press("Enter").await;
    browser.until("document.querySelectorAll('#found li').length === 3").await;
    assert_eq!(browser.text("#search-hint").await, "");
    assert_eq!(browser.complaints(&[]).await, [""; 0]);

    for header in ["Sec-Fetch-Site: cross-site", "Host: evil.example"] {
        let (code, ..) = ask(&url, "GET /dead-letters?q=", &[header], "").await;
        assert_eq!(code, 403, "{header}");
    }
    pipeline.shutdown().await.expect("all is delivered");
}

#[actix_rt::test]
async fn a_start_that_waits_for_a_transaction_says_so() {
    let mut scene = Scene::new("page_start").await;
    let url = serve(&mut scene.config);
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let mut client = postgres.connect(&scene.database).await.expect("a session");
    let open = client.transaction().await.expect("a transaction");
    open.execute("SELECT pg_current_xact_id()", &[]).await.expect("one that writes");
    let starting = Pipeline::builder().config(scene.config.clone()).start();
    let starting = actix_rt::spawn(starting);
    let mut browser = Browser::start().await;
    while tokio::net::TcpStream::connect(url.trim_start_matches("http://").trim_end_matches('/'))
        .await
        .is_err()
    {}
    browser.open(&url).await;
    let cause = "document.querySelector('#cause').textContent";
    browser.until(&format!("{cause}.includes('creating the slot waits for PID')")).await;
    assert_eq!(browser.text("#headline").await, "Starting");
    browser
        .until("document.querySelector('[data-place=postgresql]').dataset.blocked === 'true'")
        .await;
    let database = browser.text("#database").await;
    assert!(database.contains(&scene.database), "{database}");
    open.rollback().await.expect("it ends");
    let pipeline = starting.await.expect("no panic").expect("up");
    browser
        .until("document.querySelector('#headline').textContent === 'Everything is delivered'")
        .await;
    pipeline.shutdown().await.expect("in order");
}
