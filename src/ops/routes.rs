//! Answers `/healthz`, `/readyz`, `/metrics` and `/status.json`.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{self, ContentType},
    },
    web::{ServiceConfig, get},
};
use serde_json::json;

use super::{
    OpsState,
    asked::Asked,
    health::{Health, start_waits_for, stopped},
    metrics::{self, Scrape},
};
use crate::status::PipelineState;

pub(super) fn all(app: &mut ServiceConfig) {
    health(app);
    metrics(app);
}

pub(super) fn health(app: &mut ServiceConfig) {
    app.route("/healthz", get().to(healthz)).route("/readyz", get().to(readyz));
}

pub(super) fn metrics(app: &mut ServiceConfig) {
    app.route("/metrics", get().to(prometheus)).route("/status.json", get().to(status));
}

/// Answers 200 while there is progress or nothing to do.
async fn healthz(state: Asked) -> HttpResponse {
    answer(match state.check_health().1 {
        Health::Healthy => None,
        Health::Unhealthy(reason) => Some(reason),
    })
}

/// Answers 200 while the pipeline reads and delivers.
async fn readyz(state: Asked) -> HttpResponse {
    answer(not_ready(&state))
}

/// The reason why the pipeline is not ready, if it is not.
pub(super) fn not_ready(state: &OpsState) -> Option<String> {
    let (status, health) = state.check_health();
    match (&status.state, health) {
        (PipelineState::Running, Health::Healthy) => None,
        (PipelineState::Running, Health::Unhealthy(reason)) => Some(reason),
        (PipelineState::StandingBy { error } | PipelineState::Retrying { error }, _) => {
            Some(error.clone())
        }
        (PipelineState::Starting, _) => Some(start_waits_for(&status).to_owned()),
        (PipelineState::Draining, _) => Some("stopping".into()),
        (PipelineState::Stopped, _) => Some(stopped(&status)),
    }
}

async fn prometheus(state: Asked, request: HttpRequest) -> HttpResponse {
    metrics_text(Scrape::of_one(&state.status), &request)
}

/// Answers with metrics in the format that the request accepts.
pub(super) fn metrics_text(scrape: Scrape, request: &HttpRequest) -> HttpResponse {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = metrics::Format::accepted(accept);
    match metrics::encode(scrape, format) {
        Ok(text) => HttpResponse::Ok().content_type(format.content_type()).body(text),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

async fn status(state: Asked) -> HttpResponse {
    json_body(StatusCode::OK, &state.status.snapshot())
}

pub(super) fn answer(reason: Option<String>) -> HttpResponse {
    match reason {
        None => json_body(StatusCode::OK, &json!({ "ok": true })),
        Some(reason) => {
            json_body(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ok": false, "reason": reason }))
        }
    }
}

pub(super) fn json_body(code: StatusCode, body: &impl serde::Serialize) -> HttpResponse {
    match serde_json::to_string(body) {
        Ok(text) => HttpResponse::build(code).content_type(ContentType::json()).body(text),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}
