//! Streams the page's content as JSON by server-sent events: the history first, then the present
//! state every second and at each change. Browsers reconnect by themselves.

use std::convert::Infallible;

use actix_web::{
    HttpResponse,
    http::header,
    web::{Bytes, Data},
};
use futures_util::stream::unfold;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{
    super::{
        OpsState,
        asked::Asked,
        blocked::{Blocked, blocked},
        health::Health,
        history::Sample,
    },
    redrive::Run,
};
use crate::status::{PipelineState, PipelineStatus, Recent};

/// The page's content without the history.
#[derive(Serialize)]
struct Now<'a> {
    /// The answer of `/status.json`.
    status: PipelineStatus,
    /// The reason why it is unhealthy, if it is.
    unhealthy: Option<String>,
    blocked: Vec<Blocked>,
    sample: Option<Sample>,
    recent: Recent,
    redrive: Run,
    relay: &'a Relay,
    /// True if the controls are on.
    controls: bool,
}

/// Facts about the relay that do not change.
#[derive(Serialize)]
pub(in crate::ops) struct Relay {
    pub version: &'static str,
    pub slot: String,
    /// Hosts and database, such as `db.example:5432/shop`.
    pub database: String,
    /// The configured brokers; none without Kafka.
    pub brokers: Vec<String>,
    /// True if events go to Kafka.
    pub kafka: bool,
}

/// The stream to one open page.
struct Viewer {
    state: Data<OpsState>,
    states: watch::Receiver<PipelineState>,
    samples: watch::Receiver<()>,
    started: bool,
    ended: bool,
    _slot: OwnedSemaphorePermit,
}

pub(super) async fn events(Asked(state): Asked) -> HttpResponse {
    let Ok(slot) = state.page_slots.clone().try_acquire_owned() else {
        return HttpResponse::ServiceUnavailable().body("too many pages are open\n");
    };
    let viewer = Viewer {
        states: state.status.subscribe(),
        samples: state.samples.subscribe(),
        state,
        started: false,
        ended: false,
        _slot: slot,
    };
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // Keeps nginx from buffering the stream.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(unfold(viewer, next))
}

/// Answers a control with the state that it led to.
pub(super) fn answer(state: &Data<OpsState>) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(now(state))
}

async fn next(mut viewer: Viewer) -> Option<(Result<Bytes, Infallible>, Viewer)> {
    if viewer.ended {
        return None;
    }
    let mut text = String::new();
    if viewer.started {
        tokio::select! {
            changed = viewer.states.changed() => changed.ok()?,
            sampled = viewer.samples.changed() => sampled.ok()?,
        }
    } else {
        viewer.started = true;
        let history = json!({ "history": viewer.state.history().columns() });
        text = message("history", &history)?;
    }
    // A server that stops waits for its connections, so the stream has to end.
    viewer.ended = *viewer.states.borrow_and_update() == PipelineState::Stopped;
    text += &message("now", &now(&viewer.state))?;
    Some((Ok(text.into()), viewer))
}

fn message(event: &str, data: &impl Serialize) -> Option<String> {
    // The format requires JSON on one line.
    let data = serde_json::to_string(data).ok()?;
    Some(format!("event: {event}\nretry: 1000\ndata: {data}\n\n"))
}

fn now(state: &OpsState) -> Now<'_> {
    let (status, health) = state.check_health();
    Now {
        unhealthy: match health {
            Health::Healthy => None,
            Health::Unhealthy(reason) => Some(reason),
        },
        blocked: blocked(&status),
        sample: state.history().last(),
        recent: state.status.recent(),
        redrive: state.controls.redrive().run(),
        relay: &state.relay,
        controls: state.controls.are_on(),
        status,
    }
}
