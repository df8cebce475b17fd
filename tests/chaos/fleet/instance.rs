//! One instance: its name, its port, and the pipelines that it runs.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;
use tokio::time::timeout;

use crate::{
    Launch, Relay,
    support::probe::{free_port, get},
};

pub struct Instance {
    pub name: String,
    pub relay: Relay,
    port: u16,
}

impl Instance {
    pub fn start(launch: &Launch, name: String) -> Self {
        let port = free_port();
        let relay = launch
            .clone()
            .set("fleet.instance", &name)
            .set("http.metrics_port", port.to_string())
            .set("http.health_port", port.to_string())
            .spawn();
        Instance { name, relay, port }
    }

    /// The pipelines that it runs now; none while it does not answer.
    pub async fn runs(&self) -> BTreeSet<String> {
        let pipelines = self.pipelines().await;
        let running = pipelines.iter().filter(|one| Self::is_running(one));
        running.filter_map(|one| Some(one["name"].as_str()?.to_owned())).collect()
    }

    /// The pipelines that it has and that do not run, each with its state and problem.
    pub async fn waiting(&self) -> Vec<String> {
        let pipelines = self.pipelines().await;
        let waiting = pipelines.iter().filter(|one| !Self::is_running(one));
        waiting
            .map(|one| {
                format!("{} {}: {} {}", self.name, one["name"], one["state"], one["problem"])
            })
            .collect()
    }

    fn is_running(pipeline: &Value) -> bool {
        pipeline["state"] == "running" && pipeline["problem"].is_null()
    }

    async fn pipelines(&self) -> Vec<Value> {
        let answer = timeout(Duration::from_secs(5), get(self.port, "/status.json")).await;
        let body = answer.ok().flatten().map(|(_, body)| body).unwrap_or_default();
        let mut status: Value = serde_json::from_str(&body).unwrap_or_default();
        match status["pipelines"].take() {
            Value::Array(pipelines) => pipelines,
            _ => Vec::new(),
        }
    }
}
