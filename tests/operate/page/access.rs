//! The page by the rules of accessibility, in its colours, by weight, and under its policy.

use factlib::{Pipeline, emit::Fact, testing::shared_postgres};

use super::{
    browser::Browser,
    emit,
    manners::{HOSTILE, Scene},
    serve, status,
};

/// A phone, a tablet and a desktop.
const WIDTHS: [u64; 3] = [360, 768, 1280];
/// All that an open page has loaded, in bytes, without what streams in.
const WEIGHT: &str = "(async () => { const files = performance.getEntries().filter((entry) => entry.transferSize > 0); \
     return files.reduce((sum, file) => sum + file.transferSize, 0); })()";

/// Opens the page of a pipeline that has parked an event, and finds it there.
async fn open_with_a_letter(scene: &Scene, url: &str) -> Browser {
    scene.emit().await;
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let mut client = postgres.connect(&scene.database).await.expect("a session");
    let letter = Fact::new("dead-letter", HOSTILE, "order.placed");
    emit(&mut client, &scene.config, [letter]).await;
    let mut browser = Browser::start().await;
    browser.open(url).await;
    browser.until("document.querySelectorAll('#letters li').length === 1").await;
    browser.value("document.querySelector('#query').focus()").await;
    browser.write("dead-letter").await;
    browser.press("Enter").await;
    browser.until("document.querySelectorAll('#found li').length === 1").await;
    browser
}

/// Holds the page against the rules of accessibility at each width, and takes pictures of it if
/// `FACTLIB_LOOKS` names a folder for them.
pub async fn assert_accessible(browser: &mut Browser, scheme: &str, name: &str, last: &str) {
    for width in WIDTHS {
        browser.look(width, 900, scheme).await;
        let violations = browser.accessibility_violations().await;
        assert_eq!(violations, [""; 0], "{scheme}, {width} px");
        let needed = browser.value("document.documentElement.scrollWidth").await;
        assert!(needed.as_u64().is_some_and(|needed| needed <= width), "{needed} px at {width}");
        if let Some(folder) = std::env::var_os("FACTLIB_LOOKS") {
            let path = std::path::Path::new(&folder).join(format!("{name}{scheme}-{width}.png"));
            browser.picture(&path, last).await;
        }
    }
}

#[actix_rt::test]
async fn axe_finds_nothing_in_light_and_in_dark_at_three_widths() {
    let mut scene = Scene::new("page_axe").await;
    let url = serve(&mut scene.config);
    let pipeline = Pipeline::builder().config(scene.config.clone()).start().await.expect("up");
    let mut browser = open_with_a_letter(&scene, &url).await;
    assert!(browser.text("#found").await.contains(HOSTILE), "shown as text");
    for scheme in ["light", "dark"] {
        assert_accessible(&mut browser, scheme, "", "footer").await;
        for (button, dialog) in [("#unlock", "#token-dialog"), ("#redrive", "#confirm-dialog")] {
            browser.click(button).await;
            browser.until(&format!("document.querySelector('{dialog}').open")).await;
            let violations = browser.accessibility_violations().await;
            assert_eq!(violations, [""; 0], "{scheme}, {dialog}");
            browser.press("Escape").await;
            browser.until(&format!("!document.querySelector('{dialog}').open")).await;
        }
    }
    // Nothing moves for who wants it so.
    browser.until("document.querySelector('#flow').dataset.moving !== undefined").await;
    browser.value("document.querySelector('#flow').dataset.moving = 'true'").await;
    let moving = browser.value("document.getAnimations().length").await;
    assert_eq!(moving, 0);
    assert_eq!(browser.complaints(&[]).await, [""; 0]);
    pipeline.shutdown().await.expect("all is delivered");
}

#[actix_rt::test]
async fn colours_follow_the_system_until_somebody_chooses_and_the_choice_is_kept() {
    let mut scene = Scene::new("page_colours").await;
    let url = serve(&mut scene.config);
    let pipeline = Pipeline::builder().config(scene.config.clone()).start().await.expect("up");
    let mut browser = Browser::start().await;
    let background = "getComputedStyle(document.body).backgroundColor";
    let ready = "document.body.dataset.connection === 'live'";
    let (light, dark) = ("rgb(245, 245, 242)", "rgb(14, 17, 19)");
    browser.open(&url).await;
    browser.until(ready).await;
    assert_eq!(browser.value(background).await, light);
    browser.look(1280, 900, "dark").await;
    assert_eq!(browser.value(background).await, dark);

    // By keyboard: the first letter of an option chooses it.
    browser.value("document.querySelector('#theme').focus()").await;
    browser.press("L").await;
    assert_eq!(browser.value("document.querySelector('#theme').value").await, "light");
    assert_eq!(browser.value(background).await, light);
    browser.open(&url).await;
    browser.until(ready).await;
    assert_eq!(browser.value(background).await, light, "kept");
    assert_eq!(browser.value("document.querySelector('#theme').value").await, "light");
    browser.value("document.querySelector('#theme').focus()").await;
    browser.press("S").await;
    assert_eq!(browser.value(background).await, dark, "the system's again");
    assert_eq!(browser.value("localStorage.length").await, 0);
    assert_eq!(browser.complaints(&[]).await, [""; 0]);
    pipeline.shutdown().await.expect("all is delivered");
}

#[actix_rt::test]
async fn it_is_light_and_lets_nothing_foreign_run() {
    let mut scene = Scene::new("page_policy").await;
    let url = serve(&mut scene.config);
    let pipeline = Pipeline::builder().config(scene.config.clone()).start().await.expect("up");
    let mut browser = Browser::start().await;
    browser.open(&url).await;
    browser.until("document.body.dataset.connection === 'live'").await;
    let weight = browser.value(WEIGHT).await;
    assert!(weight.as_u64().is_some_and(|bytes| (10_000..100_000).contains(&bytes)), "{weight}");
    assert_eq!(browser.complaints(&[]).await, [""; 0]);
    for request in browser.requests() {
        assert!(request.starts_with(&url) || request.starts_with("about:"), "{request}");
    }

    let script = "(async () => { \
        const refused = []; \
        addEventListener('securitypolicyviolation', (event) => refused.push(event.effectiveDirective)); \
        const add = (tag, fields) => document.body.append(Object.assign(document.createElement(tag), fields)); \
        add('script', { textContent: 'window.owned = 1' }); \
        add('script', { src: 'https://evil.example/x.js' }); \
        add('img', { src: 'https://evil.example/x.png' }); \
        add('style', { textContent: 'body { display: none }' }); \
        add('iframe', { src: 'https://evil.example/' }); \
        await fetch('https://evil.example/').catch(() => {}); \
        await new Promise((resolve) => setTimeout(resolve, 300)); \
        return [window.owned, ...refused.sort()].join(); })()";
    let refused = browser.value(script).await;
    let expected = ",connect-src,frame-src,img-src,script-src-elem,script-src-elem,style-src-elem";
    assert_eq!(refused, expected);
    assert_eq!(status(&url).await["state"], "running");
    pipeline.shutdown().await.expect("all is delivered");
}
