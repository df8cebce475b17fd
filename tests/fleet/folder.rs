//! `factlib run` with a folder of pipelines.

use std::{fs, path::Path};

use factlib::{emit::Fact, testing::Program};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    Bed,
    bed::LIMIT,
    probe::{free_port, get, until},
    records::{emit, records},
};

const BINARY: &str = env!("CARGO_BIN_EXE_factlib");

/// A relay of the pipelines in a folder.
pub struct Scene {
    folder: TempDir,
    port: u16,
    program: Program,
}

impl Scene {
    fn start(beds: &[&Bed<'_>]) -> Self {
        let folder = TempDir::new().expect("a folder");
        for bed in beds {
            write(folder.path(), &bed.name, &file_of(bed));
        }
        let variables = [
            ("FACTLIB_FLEET__PIPELINES", folder.path().display().to_string()),
            ("FACTLIB_FLEET__CHECK_INTERVAL", "1s".into()),
            ("FACTLIB_FLEET__RETRY_AFTER", "1s".into()),
            ("FACTLIB_KAFKA__BROKERS", beds[0].kafka.bootstrap()),
            ("FACTLIB_KAFKA__TOPICS__PARTITIONS", "1".into()),
        ];
        Scene { folder, ..Scene::with(&variables, free_port()) }
    }

    /// A relay with these variables, which listens on a port.
    pub fn with(variables: &[(&str, String)], port: u16) -> Self {
        let ports = ["HEALTH", "METRICS"].map(|of| format!("FACTLIB_HTTP__{of}_PORT"));
        let ports = ports.map(|name| (name, port.to_string()));
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let variables: Vec<_> = variables.chain(ports).collect();
        let program = Program::start(Path::new(BINARY), &["run".into()], &variables);
        let folder = TempDir::new().expect("a folder");
        Scene { folder, port, program: program.expect("factlib starts") }
    }

    fn write(&self, name: &str, text: &str) {
        write(self.folder.path(), name, text);
    }

    /// Waits until the pipelines are as expected: name, state, and whether there is a problem.
    pub async fn shows(&self, expected: &[(&str, &str, bool)]) -> Value {
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let body = until(self.port, "/status.json", |_, body| {
            let status: Value = serde_json::from_str(body).expect("JSON");
            let pipelines = status["pipelines"].as_array().expect("a list");
            let shown = pipelines.iter().map(|pipeline| {
                let text = |name: &str| pipeline[name].as_str().unwrap_or_default();
                (text("name"), text("state"), pipeline["problem"].is_string())
            });
            let mut shown: Vec<_> = shown.collect();
            shown.sort_unstable();
            shown == expected
        });
        serde_json::from_str(&body.await).expect("JSON")
    }

    pub async fn stop(self) {
        self.program.terminate();
        let status = self.program.ended(LIMIT).await.expect("it ends");
        assert!(status.success(), "{}", self.program.output());
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    // As a configuration is rolled out: a reader sees the old file or the new one.
    let new = folder.join(format!("{name}.new"));
    fs::write(&new, text).expect("a file");
    fs::rename(new, folder.join(format!("{name}.toml"))).expect("a file");
}

fn file_of(bed: &Bed<'_>) -> String {
    format!(
        "postgres.url = {:?}\npostgres.publication = {name:?}\npostgres.message_prefix = {name:?}\n\
         kafka.topic_prefix = {name:?}\n",
        bed.postgres.url_for(&bed.database),
        name = bed.name
    )
}

async fn arrives(bed: &Bed<'_>, facts: usize) {
    let fact = Fact::new("user", "u1", "created");
    emit(bed, &[fact]).await;
    records(bed, &format!("{}.user", bed.name), facts).await;
}

#[actix::test]
async fn pipelines_are_added_changed_and_removed_while_the_others_run() {
    let (a, b, c) =
        (Bed::shared("fleet_a").await, Bed::shared("fleet_b").await, Bed::shared("fleet_c").await);
    let scene = Scene::start(&[&a, &b]);
    scene.shows(&[(&a.name, "running", false), (&b.name, "running", false)]).await;
    arrives(&a, 1).await;
    arrives(&b, 1).await;

    scene.write(&c.name, &file_of(&c));
    fs::remove_file(scene.folder.path().join(format!("{}.toml", b.name))).expect("it is there");
    scene.shows(&[(&a.name, "running", false), (&c.name, "running", false)]).await;
    arrives(&c, 1).await;
    arrives(&a, 2).await;

    scene.write(&c.name, &(file_of(&c) + "kafka.format = \"json\"\n"));
    until(scene.port, "/metrics", |_, body| {
        body.contains(&format!("factlib_events_consumed_total{{pipeline=\"{}\"}} 0", c.name))
    })
    .await;
    scene.shows(&[(&a.name, "running", false), (&c.name, "running", false)]).await;
    arrives(&c, 2).await;
    let output = scene.program.output();
    let restarted = format!("\"pipeline\":\"{}\"", a.name);
    let starts = output.lines().filter(|line| line.contains("relay running"));
    assert_eq!(starts.filter(|line| line.contains(&restarted)).count(), 1, "{output}");
    scene.stop().await;
}

#[actix::test]
async fn a_pipeline_that_fails_is_tried_again_and_disturbs_no_other() {
    let (good, bad) = (Bed::shared("fleet_good").await, Bed::shared("fleet_bad").await);
    let scene = Scene::start(&[&good]);
    let wrong = file_of(&bad).replace(&bad.database, "no_such_database");
    scene.write(&bad.name, &wrong);
    let expected = [(&*good.name, "running", false), (&*bad.name, "stopped", true)];
    let status = scene.shows(&expected).await;
    assert_eq!(status["pipelines"][0]["name"], *bad.name, "trouble comes first");
    let problem = status["pipelines"][0]["problem"].as_str().expect("a text");
    assert!(problem.contains("no_such_database"), "{problem}");
    arrives(&good, 1).await;
    // The others would suffer from a restart because of one.
    assert_eq!(get(scene.port, "/healthz").await.map(|(code, _)| code), Some(200));
    let (_, metrics) = get(scene.port, "/metrics").await.expect("an answer");
    for (bed, up) in [(&good, 1), (&bad, 0)] {
        let line = format!("factlib_pipeline_up{{pipeline=\"{}\"}} {up}", bed.name);
        assert!(metrics.lines().any(|other| other == line), "{line}\n{metrics}");
    }
    let families = metrics.lines().filter(|line| line.starts_with("# TYPE factlib_running "));
    assert_eq!(families.count(), 1, "a family comes once");

    scene.write(&bad.name, &file_of(&bad));
    scene.shows(&[(&good.name, "running", false), (&bad.name, "running", false)]).await;
    arrives(&bad, 1).await;

    // A mistake in a file leaves its pipeline as it is.
    scene.write(&good.name, "http.health_port = 1\n");
    let says = "http.health_port in";
    until(scene.port, "/healthz", |_, _| scene.program.output().contains(says)).await;
    arrives(&good, 2).await;

    let (code, page) = get(scene.port, &format!("/pipelines/{}/", good.name)).await.expect("it");
    assert!(code == 200 && page.contains("WAL reader"), "{code} {page}");
    let of_one = get(scene.port, &format!("/pipelines/{}/status.json", good.name)).await;
    assert!(of_one.is_some_and(|(code, body)| code == 200 && body.contains("saved_lsn")));
    let (code, text) = get(scene.port, "/pipelines/x/status.json").await.expect("an answer");
    assert!(code == 404, "{code}");
    assert_eq!(text, "this pipeline is not there, or has not started yet");
    let (code, list) = get(scene.port, "/").await.expect("an answer");
    assert!(code == 200 && list.contains("fleet.js"), "{code} {list}");
    scene.stop().await;
}
