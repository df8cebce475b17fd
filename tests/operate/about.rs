//! What the binary says of itself.

use std::fs;

use super::desk::Desk;

#[tokio::test]
async fn completions_manual_and_version_need_no_configuration() {
    let desk = Desk::new().await;
    fs::write(desk.folder.path().join("factlib.toml"), "nonsense").expect("written");
    for (shell, sign) in
        [("bash", "complete -F"), ("zsh", "#compdef factlib"), ("fish", "complete -c factlib")]
    {
        let script = desk.done(&format!("factlib completions {shell}")).await;
        assert!(script.contains(sign) && script.contains("doctor"), "{shell}: {script}");
    }
    assert!(desk.done("factlib man").await.contains(".TH factlib 1"));
    let page = desk.done("factlib man doctor").await;
    let title = concat!("\"factlib ", env!("CARGO_PKG_VERSION"), "\"");
    assert!(page.contains("factlib doctor") && page.contains(title), "{page}");
    assert!(desk.refuses("factlib man fly", 2).await.contains("no command fly"));
    let version = desk.done("factlib --version").await;
    let facts = ["commit: ", "target: "];
    assert!(facts.iter().all(|fact| version.contains(fact)), "{version}");
}
