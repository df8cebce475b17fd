//! Pause, resume, redrive: by POST, with `http.token`.

use std::sync::{Arc, OnceLock};

use actix::Recipient;
use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::{Data, Json},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use slog::{Logger, info, warn};

use super::{super::Watched, live, redrive::Redrive};
use crate::{Result, config::Config, messages::PauseTopic};

/// What the controls act on.
pub(in crate::ops) struct Controls {
    /// None turns them off.
    token: Option<SecretString>,
    /// None until the supervisor is there.
    pauses: OnceLock<Recipient<PauseTopic>>,
    redrive: Redrive,
    log: Logger,
}

/// Which topic.
#[derive(Deserialize)]
pub(super) struct Topic {
    topic: String,
}

impl Controls {
    /// # Errors
    /// A token file that can't be used.
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

    /// The answer to who may not ask for anything.
    fn turned_away(&self, request: &HttpRequest) -> Option<HttpResponse> {
        let Some(token) = &self.token else {
            let what = "controls are off: set http.token or http.token_file";
            return Some(refused(StatusCode::FORBIDDEN, what));
        };
        // Browsers say where a request comes from; other programs say nothing.
        let site = request.headers().get("sec-fetch-site");
        if site.is_some_and(|site| site != "same-origin") {
            return Some(refused(StatusCode::FORBIDDEN, "only the page itself may ask for this"));
        }
        let given = request.headers().get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if is_same(given, token.expose_secret()) {
            return None;
        }
        warn!(self.log, "wrong token for the controls";
            "peer" => request.peer_addr().map(|address| address.to_string()));
        Some(refused(StatusCode::UNAUTHORIZED, "that is not the token"))
    }
}

/// Is the token right?
pub(super) async fn token(watched: Data<Watched>, request: HttpRequest) -> HttpResponse {
    let turned_away = watched.controls.turned_away(&request);
    turned_away.unwrap_or_else(|| HttpResponse::NoContent().finish())
}

pub(super) async fn pause(
    watched: Data<Watched>,
    request: HttpRequest,
    body: Json<Topic>,
) -> HttpResponse {
    set_paused(&watched, &request, body.into_inner(), true).await
}

pub(super) async fn resume(
    watched: Data<Watched>,
    request: HttpRequest,
    body: Json<Topic>,
) -> HttpResponse {
    set_paused(&watched, &request, body.into_inner(), false).await
}

async fn set_paused(
    watched: &Data<Watched>,
    request: &HttpRequest,
    Topic { topic }: Topic,
    paused: bool,
) -> HttpResponse {
    let controls = &watched.controls;
    if let Some(answer) = controls.turned_away(request) {
        return answer;
    }
    // A name that nothing goes to would stay in the status for ever.
    if !watched.status.snapshot().topics.contains_key(&topic) {
        return refused(StatusCode::NOT_FOUND, "there is no such topic");
    }
    let order = PauseTopic { topic: topic.as_str().into(), paused };
    let sent = match controls.pauses.get() {
        Some(pauses) => pauses.send(order).await.is_ok(),
        None => false,
    };
    if !sent {
        return refused(StatusCode::CONFLICT, "the pipeline does not run");
    }
    info!(controls.log, "asked for over HTTP"; "topic" => topic, "paused" => paused);
    live::answer(watched)
}

/// Begins to send all dead letters again.
pub(super) async fn redrive(watched: Data<Watched>, request: HttpRequest) -> HttpResponse {
    let controls = &watched.controls;
    if let Some(answer) = controls.turned_away(&request) {
        return answer;
    }
    if let Err(why) = controls.redrive.begin(watched.clone()) {
        return refused(StatusCode::CONFLICT, why);
    }
    info!(controls.log, "redrive asked for over HTTP");
    live::answer(&watched)
}

/// In a time that does not tell how much of it is right.
fn is_same(given: &str, token: &str) -> bool {
    given.len() == token.len() && openssl::memcmp::eq(given.as_bytes(), token.as_bytes())
}

fn refused(code: StatusCode, why: &str) -> HttpResponse {
    HttpResponse::build(code).json(json!({ "error": why }))
}
