//! What a relay answers at one moment, and how that differs from a row.

use std::{collections::BTreeSet, time::Instant};

use serde_json::Value;

use crate::{
    support::probe,
    table::{Lag, Row},
};

/// Longer than a fact takes, on a machine that is busy too.
const SMALL_LAG_SECONDS: f64 = 4.0;

/// All of it; none of what nobody answers.
#[derive(Clone, Debug)]
pub struct Answers {
    pub at: Instant,
    healthz: Option<(u16, String)>,
    readyz: Option<(u16, String)>,
    pub status: Value,
    pub metrics: String,
}

impl Answers {
    pub async fn of(port: u16) -> Self {
        let healthz = get(port, "/healthz").await;
        let readyz = get(port, "/readyz").await;
        let status = get(port, "/status.json").await.map_or(Value::Null, |(_, body)| {
            serde_json::from_str(&body).expect("/status.json is JSON")
        });
        let metrics = get(port, "/metrics").await.map(|(_, body)| body).unwrap_or_default();
        Answers { at: Instant::now(), healthz, readyz, status, metrics }
    }

    /// Where it is not what the row says; nothing where it is. What grows is held against
    /// `before`.
    pub fn differences(&self, row: &Row, before: &Answers) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut hold = |what: &str, said: String, expected: String| {
            if said != expected {
                wrong.push(format!("{what}: {said} in place of {expected}"));
            }
        };
        let code = |answer: &Option<(u16, String)>| answer.as_ref().map(|(code, _)| *code);
        hold("/healthz", format!("{:?}", code(&self.healthz)), format!("{:?}", row.healthz));
        hold("/readyz", format!("{:?}", code(&self.readyz)), format!("{:?}", row.readyz));
        hold("state", self.status["state"].as_str().unwrap_or_default().into(), row.state.clone());
        hold("waits", format!("{:?}", self.waits()), format!("{:?}", row.waits));
        let lag = match (self.lag(before), row.lag) {
            // Between two facts, nothing is on its way.
            (Some(Lag::Zero), Some(Lag::Small)) => Some(Lag::Small),
            (lag, _) => lag,
        };
        hold("lag", format!("{lag:?}"), format!("{:?}", row.lag));
        for part in &row.reason {
            if !self.reason().contains(part.as_str()) {
                wrong.push(format!("the reason lacks {part:?}: {}", self.reason()));
            }
        }
        wrong
    }

    /// Why it is not well, else why it is not ready, else all that the status says.
    fn reason(&self) -> String {
        let bad =
            [&self.healthz, &self.readyz].into_iter().flatten().find(|(code, _)| *code != 200);
        let reason = bad.and_then(|(_, body)| serde_json::from_str::<Value>(body).ok());
        let reason = reason.and_then(|body| Some(body["reason"].as_str()?.to_owned()));
        reason.unwrap_or_else(|| self.status.to_string().replace("\\\"", "\""))
    }

    fn waits(&self) -> BTreeSet<(String, String)> {
        let of = |group: &str, name: fn(&str) -> &str| {
            let all = self.status[group].as_object().into_iter().flatten();
            let waiting = all.filter_map(|(who, status)| {
                Some((name(who).to_owned(), status["blocked_by"].as_str()?.to_owned()))
            });
            waiting.collect::<Vec<_>>()
        };
        of("actors", |actor| actor).into_iter().chain(of("topics", |_| "topic")).collect()
    }

    fn lag(&self, before: &Answers) -> Option<Lag> {
        if self.status.is_null() {
            return None;
        }
        let lag = |answers: &Answers| answers.status["lag"]["seconds"].as_f64();
        let Some(seconds) = lag(self) else { return Some(Lag::Unknown) };
        let passed = self.at.duration_since(before.at).as_secs_f64();
        let grown = lag(before).map(|before| seconds - before);
        Some(match seconds {
            0.0 => Lag::Zero,
            ..=SMALL_LAG_SECONDS => Lag::Small,
            _ if grown >= Some(passed / 2.0) => Lag::Grows,
            _ => Lag::Shrinks,
        })
    }
}

/// Status code and body; none while nobody listens.
async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    loop {
        match probe::get(port, path).await {
            // This test asked too slowly, on a machine that is very busy.
            Some((408, _)) => {}
            answer => return answer,
        }
    }
}
