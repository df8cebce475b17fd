//! A headless Chromium, driven over its DevTools protocol, with one tab.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use factlib::testing::Program;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::{LIMIT, axe};

/// As `scripts/bootstrap` looks for it.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
const ON_MACOS: &str = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome";

const OPTIONS: [&str; 8] = [
    "--headless",
    // Tests run as root too, where there is no sandbox.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-port=0",
    // Relative to its folder, which goes with it.
    "--user-data-dir=profile",
    // What the page asked for elsewhere would fail, beside being noticed.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
];

pub struct Browser {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Option<String>,
    calls: u64,
    events: Vec<Value>,
    /// Dropped last: it is what the others speak with.
    _program: Program,
}

impl Browser {
    pub async fn start() -> Self {
        let options: Vec<_> = OPTIONS.iter().map(ToString::to_string).collect();
        let kept = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
        let mut variables: Vec<_> = ["PATH", "LANG"].into_iter().filter_map(kept).collect();
        variables.push(("HOME".into(), ".".into()));
        let program = Program::start(&chromium(), &options, &variables).expect("Chromium starts");
        let listening = async {
            loop {
                let output = program.output();
                if let Some((_, rest)) = output.split_once("DevTools listening on ")
                    && let Some((address, _)) = rest.split_once('\n')
                {
                    return address.trim().to_owned();
                }
                assert!(program.is_running(), "Chromium ended: {output}");
                sleep(Duration::from_millis(20)).await;
            }
        };
        let address = timeout(LIMIT, listening).await;
        let address = address.unwrap_or_else(|_| panic!("no address: {}", program.output()));
        let (socket, _) = connect_async(&address).await.expect("a connection to Chromium");
        let (session, events) = (None, Vec::new());
        let mut browser = Browser { socket, session, calls: 0, events, _program: program };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach).await;
        browser.session = session["sessionId"].as_str().map(Into::into);
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser.look(1280, 900, "light").await;
        browser
    }

    /// What a command answers; events that come before are kept.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut command = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        let command = Message::text(command.to_string());
        self.socket.send(command).await.expect("Chromium takes a command");
        let answered = async {
            loop {
                let message = self.socket.next().await.expect("more").expect("a message");
                let Ok(text) = message.into_text() else { continue };
                let Ok(mut message) = serde_json::from_str::<Value>(&text) else { continue };
                if message["id"] == self.calls {
                    assert!(message["error"].is_null(), "{method}: {message}");
                    return message["result"].take();
                }
                self.events.push(message);
            }
        };
        let answer = timeout(LIMIT, answered).await;
        answer.unwrap_or_else(|_| panic!("{method} is not answered"))
    }

    pub async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url })).await;
    }

    /// Size of the window, and `light` or `dark`.
    pub async fn look(&mut self, width: u64, height: u64, scheme: &str) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600
        });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            // Pictures are of something that stands.
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// The value of an expression in the page.
    pub async fn value(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", params).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true; while the page loads, much of it is not there.
    pub async fn until(&mut self, expression: &str) {
        let asked = format!(
            "(() => {{ try {{ return Boolean({expression}) }} catch {{ return false }} }})()"
        );
        let fits = async {
            while self.value(&asked).await != true {
                sleep(Duration::from_millis(50)).await;
            }
        };
        if timeout(LIMIT, fits).await.is_err() {
            let text = self.value("document.body.innerText").await;
            panic!("never true: {expression}\n{}", text.as_str().unwrap_or_default());
        }
    }

    pub async fn text(&mut self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({selector:?}).textContent")).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Clicks as a mouse does: on whatever is there.
    pub async fn click(&mut self, selector: &str) {
        let find = format!(
            "(() => {{ const at = document.querySelector({selector:?}); at.scrollIntoView({{ block: 'center', behavior: 'instant' }}); \
             const box = at.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let place = self.value(&find).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1
            });
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Presses a key: `Tab`, `Enter`, `Escape` or a capital letter.
    pub async fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            letter if letter.len() == 1 => u32::from(letter.as_bytes()[0]),
            other => panic!("no code for {other}"),
        };
        let text = match key {
            "Enter" => "\r",
            letter if letter.len() == 1 => letter,
            _ => "",
        };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({
                "type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code
            });
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    pub async fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text })).await;
    }

    /// A picture of the page down to the end of an element.
    pub async fn picture(&mut self, path: &Path, last: &str) {
        let find = format!(
            "[innerWidth, Math.round(document.querySelector({last:?}).getBoundingClientRect().bottom + scrollY + 16)]"
        );
        let size = self.value(&find).await;
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        let params = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let picture = self.call("Page.captureScreenshot", params).await;
        let data = picture["data"].as_str().expect("a picture");
        let bytes = BASE64_STANDARD.decode(data).expect("base64");
        std::fs::write(path, bytes).expect("a picture is written");
    }

    /// What went wrong in the page, but for what was to be: an entry of the log whose text
    /// contains one of these.
    pub async fn complaints(&mut self, expected: &[&str]) -> Vec<String> {
        self.call("Runtime.evaluate", json!({ "expression": "0" })).await;
        let events = self.events.iter().filter(|event| {
            let (method, entry) = (event["method"].as_str(), &event["params"]["entry"]);
            match method {
                Some("Runtime.exceptionThrown" | "Runtime.consoleAPICalled") => true,
                Some("Log.entryAdded") => entry["level"] == "error" || entry["level"] == "warning",
                _ => false,
            }
        });
        let texts = events.map(|event| event["params"].to_string());
        texts.filter(|text| !expected.iter().any(|part| text.contains(part))).collect()
    }

    /// The rules of accessibility that the page breaks now, each with the elements that break it.
    pub async fn accessibility_violations(&mut self) -> Vec<String> {
        if self.value("typeof axe").await == "undefined" {
            self.value(&axe::script()).await;
        }
        let found = self.value(axe::RUN).await;
        let found = found.as_str().expect("axe answers with text");
        serde_json::from_str(found).expect("a list of texts")
    }

    /// The addresses of all that was asked for.
    pub fn requests(&self) -> Vec<String> {
        let sent =
            self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| event["params"]["request"]["url"].as_str().map(Into::into))
            .collect()
    }
}

fn chromium() -> PathBuf {
    if let Some(path) = std::env::var_os("FACTLIB_CHROMIUM") {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let named = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let mut all = named.chain([ON_MACOS.into()]);
    all.find(|path| path.is_file()).expect("no Chromium: run scripts/bootstrap --tests")
}
