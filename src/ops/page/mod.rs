//! Serves the status page: static files without a build step, a live stream of events, and the
//! controls.
//!
//! | file | idea |
//! | --- | --- |
//! | `assets/` | the page: one HTML file, one style sheet, a few script modules |
//! | `live` | streams the page's content as JSON |
//! | `controls` | pause, resume and redrive, by POST with the token |
//! | `redrive` | redrives dead letters in the background |
//! | `search` | finds dead letters in their topic |
//! | `names` | rejects requests for foreign host names on a loopback address |
//!
//! # Safety
//! The page shows nothing secret, so reading it requires no token. A request that changes anything
//! requires `http.token` in a header, which pages of other sites can't send; there are no cookies.
//! All texts come from outside: the script inserts them as text only, and the policy below lets only
//! our own files load and run.

mod controls;
mod live;
pub(super) mod names;
mod redrive;
mod search;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    web::{ServiceConfig, get, post},
};

pub(super) use self::{controls::Controls, live::Relay, search::Search};

/// Forbids inline scripts and styles, foreign sources, and frames around the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// Path, content type and text of each file.
const ASSETS: [(&str, &str, &str); 12] = [
    ("/", HTML, include_str!("assets/index.html")),
    ("/style.css", CSS, include_str!("assets/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("/theme.js", JS, include_str!("assets/theme.js")),
    ("/page.js", JS, include_str!("assets/page.js")),
    ("/format.js", JS, include_str!("assets/format.js")),
    ("/pipeline.js", JS, include_str!("assets/pipeline.js")),
    ("/charts.js", JS, include_str!("assets/charts.js")),
    ("/tables.js", JS, include_str!("assets/tables.js")),
    ("/controls.js", JS, include_str!("assets/controls.js")),
    ("/search.js", JS, include_str!("assets/search.js")),
    ("/verdict.js", JS, include_str!("assets/verdict.js")),
];

/// Those of the list of a fleet.
const FLEET_ASSETS: [(&str, &str, &str); 6] = [
    ("/", HTML, include_str!("assets/fleet.html")),
    ("/style.css", CSS, include_str!("assets/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("/theme.js", JS, include_str!("assets/theme.js")),
    ("/format.js", JS, include_str!("assets/format.js")),
    ("/fleet.js", JS, include_str!("assets/fleet.js")),
];

/// Adds the page and all that it loads, by paths relative to its own.
pub(super) fn routes(app: &mut ServiceConfig) {
    for (path, kind, text) in ASSETS {
        app.route(path, get().to(async move || asset(kind, text)));
    }
    // Without the trailing slash, the page's relative paths would miss the scope.
    app.route("", get().to(with_slash))
        .route("/events", get().to(live::events))
        .route("/dead-letters", get().to(search::dead_letters))
        .route("/controls/token", post().to(controls::token))
        .route("/controls/pause", post().to(controls::pause))
        .route("/controls/resume", post().to(controls::resume))
        .route("/controls/redrive", post().to(controls::redrive));
}

/// Adds the page that lists the pipelines of a fleet.
pub(super) fn fleet_routes(app: &mut ServiceConfig) {
    for (path, kind, text) in FLEET_ASSETS {
        app.route(path, get().to(async move || asset(kind, text)));
    }
    app.route("", get().to(with_slash));
}

fn asset(kind: &str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        // An upgraded relay may have another page.
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(text)
}

/// Redirects to the path with a slash; relatively, as a proxy may have cut the path.
async fn with_slash(request: HttpRequest) -> HttpResponse {
    let last = request.path().rsplit('/').next().unwrap_or_default();
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, format!("{last}/"))).finish()
}
