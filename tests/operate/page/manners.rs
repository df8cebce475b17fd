//! The page on a phone, by keyboard, for a screen reader, with hostile names, under a
//! path of an application's, and on an instance that stands by.

use actix_web::{App, HttpServer};
use factlib::{
    Pipeline,
    config::{Config, KafkaClient},
    emit::Fact,
    testing::{fake_broker::FakeCluster, shared_postgres},
};
use serde_json::{Value, json};

use super::{browser::Browser, emit, serve};

pub const HOSTILE: &str = "<img src=x onerror=\"document.title='owned'\">";

pub struct Scene {
    pub config: Config,
    pub database: String,
    /// Fake brokers do: the page is what is looked at.
    _broker: FakeCluster,
}

impl Scene {
    pub async fn new(name: &str) -> Self {
        let postgres = shared_postgres().await.expect("PostgreSQL starts");
        let broker = FakeCluster::start().await.expect("a fake broker");
        for topic in [
            "order",
            "payment",
            "a-rather-long-aggregate-type-with-many-words-in-its-name",
            "dead-letter",
        ] {
            broker.create_topic(&format!("factlib.{topic}"), 1).expect("a topic");
        }
        let database = postgres.create_database(name).await.expect("a database");
        let mut config = Config::default();
        config.postgres.url = postgres.url_for(&database).into();
        config.postgres.slot = database.clone();
        config.kafka.brokers = vec![broker.bootstrap()];
        config.kafka.client = KafkaClient::Pipelined;
        Scene { config, database, _broker: broker }
    }

    pub async fn emit(&self) {
        let postgres = shared_postgres().await.expect("PostgreSQL starts");
        let mut client = postgres.connect(&self.database).await.expect("a session");
        let long = "a-rather-long-aggregate-type-with-many-words-in-its-name";
        let facts = [
            Fact::new("order", HOSTILE, HOSTILE),
            Fact::new("payment", "x".repeat(400), "y".repeat(400)),
            Fact::new(long, "1", "placed"),
        ];
        emit(&mut client, &self.config, facts).await;
    }
}

#[actix_rt::test]
async fn it_fits_a_phone_takes_the_keyboard_names_everything_and_trusts_no_text() {
    let mut scene = Scene::new("page_manners").await;
    let url = serve(&mut scene.config);
    let pipeline = Pipeline::builder().config(scene.config.clone()).start().await.expect("up");
    scene.emit().await;
    let mut browser = Browser::start().await;
    browser.look(360, 780, "dark").await;
    browser.open(&url).await;
    browser.until("document.querySelectorAll('#events tbody tr').length === 3").await;
    for (width, scheme) in [(360, "dark"), (320, "light"), (800, "light"), (1280, "dark")] {
        browser.look(width, 780, scheme).await;
        // Not against the window: a phone's grows with what is too wide for it.
        let needed = browser.value("document.documentElement.scrollWidth").await;
        assert!(needed.as_u64().is_some_and(|pixels| pixels <= width), "{needed} px at {width}");
    }

    let events = browser.text("#events tbody").await;
    assert!(events.contains(HOSTILE), "shown as text: {events}");
    assert_eq!(browser.value("document.querySelectorAll('main img').length").await, 0);
    assert_ne!(browser.value("document.title").await, "owned");

    // The keyboard comes to each control, and sees where it is.
    let mut reached = Vec::new();
    let focused = "(() => { const at = document.activeElement; const seen = getComputedStyle(at).outlineStyle !== 'none'; \
         return (at.getAttribute('aria-label') ?? at.id) + (seen ? '' : ' unseen'); })()";
    for _ in 0..18 {
        browser.press("Tab").await;
        reached.push(browser.value(focused).await.as_str().unwrap_or_default().to_owned());
    }
    for control in [
        "theme",
        "Pause factlib.order",
        "redrive",
        "query",
        "search-button",
        "events-scroll",
        "unlock",
    ] {
        assert!(reached.iter().any(|at| at == control), "{control} is not in {reached:?}");
    }
    browser.value("document.querySelector('#unlock').focus()").await;
    browser.press("Enter").await;
    browser
        .until(
            "document.querySelector('#token-dialog').open && document.activeElement.id === 'token'",
        )
        .await;
    let nodes = browser.call("Accessibility.getFullAXTree", json!({})).await;
    assert_named(&nodes, &["textbox"]);
    browser.press("Escape").await;
    browser.until("!document.querySelector('#token-dialog').open && document.activeElement.id === 'unlock'").await;

    let nodes = browser.call("Accessibility.getFullAXTree", json!({})).await;
    assert_named(&nodes, &["button", "link", "meter", "image", "table", "region", "heading"]);
    assert_eq!(browser.complaints(&[]).await, [""; 0]);
    let requests = browser.requests();
    assert!(requests.len() > 5, "{requests:?}");
    for request in requests {
        assert!(request.starts_with(&url) || request.starts_with("about:"), "{request}");
    }
    pipeline.shutdown().await.expect("all is delivered");
}

/// Each of these roles is there, and all that have one have a name.
fn assert_named(tree: &Value, roles: &[&str]) {
    let nodes = tree["nodes"].as_array().expect("nodes");
    let shown: Vec<_> = nodes.iter().filter(|node| node["ignored"] != true).collect();
    for role in roles {
        let of_role: Vec<_> = shown.iter().filter(|node| node["role"]["value"] == *role).collect();
        assert!(!of_role.is_empty(), "no {role}");
        for node in of_role {
            let name = node["name"]["value"].as_str().unwrap_or_default();
            assert!(!name.trim().is_empty(), "a {role} without a name: {node}");
        }
    }
}

#[actix_rt::test]
async fn who_stands_by_has_a_page_that_says_so_and_takes_over() {
    let mut scene = Scene::new("page_standby").await;
    let first = Pipeline::builder().config(scene.config.clone()).start().await.expect("up");
    let url = serve(&mut scene.config);
    let second = Pipeline::builder().config(scene.config.clone()).as_another_process();
    let second = second.start().await.expect("it stands by");
    let mut browser = Browser::start().await;
    browser.until(&format!("true || {url:?}")).await;
    browser.open(&url).await;
    browser.until("document.querySelector('#headline')?.textContent === 'Standing by'").await;
    assert_eq!(browser.text("[data-field=state]").await, "standing by");
    assert_eq!(browser.value("document.querySelector('#summary').dataset.tone").await, "idle");
    let cause = browser.text("#cause").await;
    assert!(cause.contains("active for PID"), "{cause}");
    first.shutdown().await.expect("in order");
    browser
        .until("document.querySelector('#headline').textContent === 'Everything is delivered'")
        .await;
    second.shutdown().await.expect("in order");
}

#[actix_rt::test]
async fn it_lives_under_a_path_of_an_application() {
    let scene = Scene::new("page_embedded").await;
    let pipeline = Pipeline::builder().config(scene.config.clone()).start().await.expect("up");
    let routes = pipeline.routes();
    let server = HttpServer::new(move || App::new().service(routes.scope("/ops/relay")))
        .workers(1)
        .disable_signals()
        .bind("127.0.0.1:0")
        .expect("a port");
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    actix_rt::spawn(server);
    scene.emit().await;
    let mut browser = Browser::start().await;
    browser.open(&format!("http://{address}/ops/relay")).await;
    browser.until("document.querySelectorAll('#events tbody tr').length === 3").await;
    assert_eq!(browser.value("location.pathname").await, "/ops/relay/");
    assert_eq!(browser.complaints(&[]).await, [""; 0]);
    let links = "Promise.all([...document.querySelectorAll('footer a')].map(async (link) => (await fetch(link.href)).status)).then(String)";
    assert_eq!(browser.value(links).await, "200,200");
    // An open page does not hold up the end.
    pipeline.shutdown().await.expect("all is delivered");
    tokio::time::timeout(std::time::Duration::from_secs(10), handle.stop(true))
        .await
        .expect("the page's stream has ended");
}
