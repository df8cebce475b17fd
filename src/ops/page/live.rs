//! What the page shows: as JSON, each second and at each change of the state, by
//! server-sent events. The first one has the last minutes; it reconnects by itself.

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
        Watched,
        blocked::{Blocked, blocked},
        health::Health,
        history::Sample,
    },
    redrive::Run,
};
use crate::status::{PipelineState, PipelineStatus, Recent};

/// Everything but the history.
#[derive(Serialize)]
struct Now<'a> {
    /// What `/status.json` answers.
    status: PipelineStatus,
    /// Why it is not healthy.
    unhealthy: Option<String>,
    blocked: Vec<Blocked>,
    sample: Option<Sample>,
    recent: Recent,
    redrive: Run,
    relay: &'a Relay,
    /// Are there controls?
    controls: bool,
}

/// What does not change.
#[derive(Serialize)]
pub(in crate::ops) struct Relay {
    pub version: &'static str,
    pub slot: String,
    /// Do events go there?
    pub kafka: bool,
}

/// A page's stream.
struct Viewer {
    watched: Data<Watched>,
    states: watch::Receiver<PipelineState>,
    samples: watch::Receiver<()>,
    begun: bool,
    over: bool,
    _slot: OwnedSemaphorePermit,
}

pub(super) async fn events(watched: Data<Watched>) -> HttpResponse {
    let Ok(slot) = watched.page_slots.clone().try_acquire_owned() else {
        return HttpResponse::ServiceUnavailable().body("too many pages are open\n");
    };
    let viewer = Viewer {
        states: watched.status.subscribe(),
        samples: watched.samples.subscribe(),
        watched,
        begun: false,
        over: false,
        _slot: slot,
    };
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // Proxies of this kind would collect it.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(unfold(viewer, next))
}

/// The state of now, to whoever asked for a change of it.
pub(super) fn answer(watched: &Data<Watched>) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(now(watched))
}

async fn next(mut viewer: Viewer) -> Option<(Result<Bytes, Infallible>, Viewer)> {
    if viewer.over {
        return None;
    }
    let mut text = String::new();
    if viewer.begun {
        tokio::select! {
            changed = viewer.states.changed() => changed.ok()?,
            sampled = viewer.samples.changed() => sampled.ok()?,
        }
    } else {
        viewer.begun = true;
        let history = json!({ "history": viewer.watched.history().columns() });
        text = message("history", &history)?;
    }
    // A server that ends waits for its connections.
    viewer.over = *viewer.states.borrow_and_update() == PipelineState::Stopped;
    text += &message("now", &now(&viewer.watched))?;
    Some((Ok(text.into()), viewer))
}

fn message(event: &str, data: &impl Serialize) -> Option<String> {
    // JSON on one line, which is what the format asks for.
    let data = serde_json::to_string(data).ok()?;
    Some(format!("event: {event}\nretry: 1000\ndata: {data}\n\n"))
}

fn now(watched: &Watched) -> Now<'_> {
    let (status, health) = watched.judge();
    Now {
        unhealthy: match health {
            Health::Good => None,
            Health::Bad(reason) => Some(reason),
        },
        blocked: blocked(&status),
        sample: watched.history().last(),
        recent: watched.status.recent(),
        redrive: watched.controls.redrive().run(),
        relay: &watched.relay,
        controls: watched.controls.are_on(),
        status,
    }
}
