//! The page's controls: pause, resume and redrive, by POST with `http.token`.

use std::sync::{Arc, OnceLock};

use actix::Recipient;
use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::{Bytes, Data, Json},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use slog::{Logger, info, warn};
use subtle::ConstantTimeEq;

use super::{
    super::{OpsState, asked::Asked},
    live,
    redrive::Redrive,
};
use crate::{Result, config::Config, dead_letter::LetterPosition, messages::PauseTopic};

/// Checks the token and passes orders on.
pub(in crate::ops) struct Controls {
    /// None turns the controls off.
    token: Option<SecretString>,
    /// Unset until the supervisor is running.
    pauses: OnceLock<Recipient<PauseTopic>>,
    redrive: Redrive,
    log: Logger,
}

/// Body of a request to pause or resume.
#[derive(Deserialize)]
pub(super) struct Topic {
    topic: String,
}

/// Body of a request to redrive chosen letters.
#[derive(Deserialize)]
struct Chosen {
    /// Positions, such as `0:17`.
    letters: Vec<String>,
}

impl Controls {
    pub fn new(config: &Arc<Config>, kafka: bool, log: &Logger) -> Result<Self> {
        Ok(Controls {
            token: config.http.token.clone(),
            pauses: OnceLock::new(),
            redrive: Redrive::new(Arc::clone(config), kafka, log),
            log: log.clone(),
        })
    }

    /// Connects the controls with the supervisor.
    pub fn set_control(&self, pauses: Recipient<PauseTopic>) {
        // Only the first call counts.
        let _ = self.pauses.set(pauses);
    }

    pub fn are_on(&self) -> bool {
        self.token.is_some()
    }

    pub fn redrive(&self) -> &Redrive {
        &self.redrive
    }

    /// Returns the answer for a request that is not allowed; none for one that is.
    fn rejection(&self, request: &HttpRequest) -> Option<HttpResponse> {
        let Some(token) = &self.token else {
            let what = "controls are off: set http.token or http.token_file";
            return Some(refused(StatusCode::FORBIDDEN, what));
        };
        if let Some(answer) = foreign(request) {
            return Some(answer);
        }
        let given = request.headers().get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if is_same(given, token.expose_secret()) {
            return None;
        }
        warn!(self.log, "wrong token for the controls";
            "peer" => request.peer_addr().map(|address| address.to_string()));
        Some(refused(StatusCode::UNAUTHORIZED, "wrong token"))
    }
}

/// Checks the token.
pub(super) async fn token(state: Asked, request: HttpRequest) -> HttpResponse {
    let rejection = state.controls.rejection(&request);
    rejection.unwrap_or_else(|| HttpResponse::NoContent().finish())
}

pub(super) async fn pause(state: Asked, request: HttpRequest, body: Json<Topic>) -> HttpResponse {
    set_paused(&state, &request, body.into_inner(), true).await
}

pub(super) async fn resume(state: Asked, request: HttpRequest, body: Json<Topic>) -> HttpResponse {
    set_paused(&state, &request, body.into_inner(), false).await
}

async fn set_paused(
    state: &Data<OpsState>,
    request: &HttpRequest,
    Topic { topic }: Topic,
    paused: bool,
) -> HttpResponse {
    let controls = &state.controls;
    if let Some(answer) = controls.rejection(request) {
        return answer;
    }
    // Pausing an unknown topic would add it to the status for ever.
    if !state.status.snapshot().topics.contains_key(&topic) {
        return refused(StatusCode::NOT_FOUND, "there is no such topic");
    }
    let order = PauseTopic { topic: topic.as_str().into(), paused };
    let sent = match controls.pauses.get() {
        Some(pauses) => pauses.send(order).await.is_ok(),
        None => false,
    };
    if !sent {
        return refused(StatusCode::CONFLICT, "the pipeline is not running");
    }
    info!(controls.log, "pause or resume requested over HTTP"; "topic" => topic, "paused" => paused);
    live::answer(state)
}

/// Starts redriving the letters that the body names; without a body, all.
pub(super) async fn redrive(state: Asked, request: HttpRequest, body: Bytes) -> HttpResponse {
    let controls = &state.controls;
    if let Some(answer) = controls.rejection(&request) {
        return answer;
    }
    let chosen = match chosen(&body) {
        Ok(chosen) => chosen,
        Err(why) => return refused(StatusCode::BAD_REQUEST, &why),
    };
    let count = chosen.as_ref().map(Vec::len);
    if let Err(why) = controls.redrive.begin(state.0.clone(), chosen) {
        return refused(StatusCode::CONFLICT, why);
    }
    info!(controls.log, "redrive requested over HTTP"; "chosen" => count);
    live::answer(&state)
}

/// Reads the positions in a body; none for an empty body, which stands for all letters.
fn chosen(body: &[u8]) -> Result<Option<Vec<LetterPosition>>, String> {
    if body.is_empty() {
        return Ok(None);
    }
    let expected = r#"the body has to be empty, or such as {"letters":["0:17"]}"#;
    let Chosen { letters } =
        serde_json::from_slice(body).map_err(|error| format!("{expected}: {error}"))?;
    if letters.is_empty() {
        return Err(expected.into());
    }
    let positions = letters.iter().map(|text| text.parse());
    positions.collect::<Result<_>>().map(Some).map_err(|error| error.to_string())
}

/// Returns the answer for a browser's request from another site's page; none for all others.
pub(super) fn foreign(request: &HttpRequest) -> Option<HttpResponse> {
    // Browsers send this header; other programs need not.
    let site = request.headers().get("sec-fetch-site");
    let foreign = site.is_some_and(|site| site != "same-origin");
    let why = "only the page itself may send this request";
    foreign.then(|| refused(StatusCode::FORBIDDEN, why))
}

/// Compares in constant time, so that timing reveals nothing about the token.
fn is_same(given: &str, token: &str) -> bool {
    given.as_bytes().ct_eq(token.as_bytes()).into()
}

pub(super) fn refused(code: StatusCode, why: &str) -> HttpResponse {
    HttpResponse::build(code).json(json!({ "error": why }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_body_stands_for_all_letters() {
        let position = |partition, offset| LetterPosition { partition, offset };
        assert_eq!(chosen(b""), Ok(None));
        let two = br#"{"letters":["0:17","2:3"]}"#;
        assert_eq!(chosen(two), Ok(Some(vec![position(0, 17), position(2, 3)])));
        for wrong in ["{}", "[]", "null", r#"{"letters":[]}"#, r#"{"letters":["17"]}"#, "x"] {
            assert!(chosen(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
