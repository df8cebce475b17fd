//! The list of a fleet's pipelines, and the way from there to the page of one.

use factlib::{Error, ErrorKind, Fleet, Pipeline};

use super::{access::WIDTHS, browser::Browser, manners::Scene, serve};

#[actix_rt::test]
async fn the_list_shows_trouble_first_and_leads_to_each_page() {
    let mut scene = Scene::new("page_fleet").await;
    let url = serve(&mut scene.config);
    let config = scene.config.clone();
    let fleet = Fleet::builder()
        .config(&config)
        .pipeline("good", move || Ok(Pipeline::builder().config(config.clone())))
        .pipeline("<b>bad</b>", || Err(Error::new(ErrorKind::Config, "no <i>such</i> database")))
        .start()
        .expect("it starts");
    let mut browser = Browser::start().await;
    browser.open(&url).await;
    browser.until("document.querySelectorAll('#pipelines tbody tr').length === 2").await;
    browser.until("document.querySelector('#pipelines').textContent.includes('Running')").await;
    scene.emit().await;
    let first = browser.text("#pipelines tbody tr").await;
    assert!(first.contains("<b>bad</b>") && first.contains("no <i>such</i> database"), "{first}");
    assert_eq!(browser.text("#headline").await, "1 of 2 pipelines in trouble");
    for scheme in ["light", "dark"] {
        for width in WIDTHS {
            browser.look(width, 900, scheme).await;
            let violations = browser.accessibility_violations().await;
            assert_eq!(violations, [""; 0], "{scheme}, {width} px");
            let needed = browser.value("document.documentElement.scrollWidth").await;
            assert!(
                needed.as_u64().is_some_and(|needed| needed <= width),
                "{needed} px at {width}"
            );
            if let Some(folder) = std::env::var_os("FACTLIB_LOOKS") {
                let name = format!("fleet-{scheme}-{width}.png");
                browser.picture(&std::path::Path::new(&folder).join(name), "main").await;
            }
        }
    }
    browser.click("a[href='pipelines/good/']").await;
    browser.until("document.querySelectorAll('#events tbody tr').length === 3").await;
    assert_eq!(browser.value("location.pathname").await, "/pipelines/good/");
    assert_eq!(browser.complaints(&[]).await, [""; 0]);
    fleet.shutdown().await.expect("all is delivered");
}
