//! What is answered at which path.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header::ContentType},
    web::{Data, ServiceConfig, get},
};
use serde_json::json;

use super::{
    Watched,
    health::{Health, start_waits_for, stopped},
    metrics,
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

/// 200 while something moves or nothing has to.
async fn healthz(watched: Data<Watched>) -> HttpResponse {
    answer(match watched.judge().1 {
        Health::Good => None,
        Health::Bad(reason) => Some(reason),
    })
}

/// 200 while the pipeline reads and delivers.
async fn readyz(watched: Data<Watched>) -> HttpResponse {
    let (status, health) = watched.judge();
    answer(match (&status.state, health) {
        (PipelineState::Running, Health::Good) => None,
        (PipelineState::Running, Health::Bad(reason)) => Some(reason),
        (PipelineState::StandingBy { error } | PipelineState::Retrying { error }, _) => {
            Some(error.clone())
        }
        (PipelineState::Starting, _) => Some(start_waits_for(&status).to_owned()),
        (PipelineState::Draining, _) => Some("stopping".into()),
        (PipelineState::Stopped, _) => Some(stopped(&status)),
    })
}

async fn prometheus(watched: Data<Watched>) -> HttpResponse {
    match metrics::encode(&watched.status) {
        Ok(text) => HttpResponse::Ok().content_type(metrics::CONTENT_TYPE).body(text),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

async fn status(watched: Data<Watched>) -> HttpResponse {
    json_body(StatusCode::OK, &watched.status.snapshot())
}

fn answer(reason: Option<String>) -> HttpResponse {
    match reason {
        None => json_body(StatusCode::OK, &json!({ "ok": true })),
        Some(reason) => {
            json_body(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ok": false, "reason": reason }))
        }
    }
}

fn json_body(code: StatusCode, body: &impl serde::Serialize) -> HttpResponse {
    match serde_json::to_string(body) {
        Ok(text) => HttpResponse::build(code).content_type(ContentType::json()).body(text),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}
