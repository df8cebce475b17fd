//! The list of a fleet's pipelines, and the way from there to the page of one.

use factlib::{Error, ErrorKind, Fleet, Pipeline};

use super::{access::assert_accessible, browser::Browser, manners::Scene, serve};

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
        assert_accessible(&mut browser, scheme, "fleet-", "main").await;
    }
    browser.click("a[href='pipelines/good/']").await;
    browser.until("document.querySelectorAll('#events tbody tr').length === 3").await;
    assert_eq!(browser.value("location.pathname").await, "/pipelines/good/");
    assert_eq!(browser.complaints(&[]).await, [""; 0]);
    fleet.shutdown().await.expect("all is delivered");
}
