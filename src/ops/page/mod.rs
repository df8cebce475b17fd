//! The status page: a few files without a build step, live by server-sent events,
//! and the controls on it.
//!
//! | file | idea |
//! | --- | --- |
//! | `assets/` | the page: one HTML, one style, a script module an idea |
//! | `live` | what the page shows, as JSON, each second and at each change |
//! | `controls` | pause, resume, redrive: by POST, with the token |
//! | `redrive` | dead letters sent again in the background |
//! | `names` | who may ask at all: names of this machine, on a loopback address |
//!
//! # Safety
//! Nothing secret is shown, so reading asks for nothing beyond the listener's address.
//! What changes anything asks for `http.token` in a header, which no other site's page
//! can send; there are no cookies. All texts come from outside: the script sets them as
//! text only, and the policy below lets nothing run or load that is not ours.

mod controls;
mod live;
pub(super) mod names;
mod redrive;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    web::{ServiceConfig, get, post},
};

pub(super) use self::{controls::Controls, live::Relay};

/// No inline script or style, nothing from elsewhere, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// Path, type and text of each file.
const ASSETS: [(&str, &str, &str); 9] = [
    ("/", HTML, include_str!("assets/index.html")),
    ("/style.css", CSS, include_str!("assets/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("/page.js", JS, include_str!("assets/page.js")),
    ("/format.js", JS, include_str!("assets/format.js")),
    ("/pipeline.js", JS, include_str!("assets/pipeline.js")),
    ("/charts.js", JS, include_str!("assets/charts.js")),
    ("/tables.js", JS, include_str!("assets/tables.js")),
    ("/controls.js", JS, include_str!("assets/controls.js")),
];

/// The page and all that it asks for, by paths below its own.
pub(super) fn routes(app: &mut ServiceConfig) {
    for (path, kind, text) in ASSETS {
        app.route(path, get().to(async move || asset(kind, text)));
    }
    // Of a scope without the slash, relative paths would be beside it.
    app.route("", get().to(with_slash))
        .route("/events", get().to(live::events))
        .route("/controls/token", post().to(controls::token))
        .route("/controls/pause", post().to(controls::pause))
        .route("/controls/resume", post().to(controls::resume))
        .route("/controls/redrive", post().to(controls::redrive));
}

fn asset(kind: &str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        // A newer relay has a newer page.
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(text)
}

/// Relative, as a proxy before us may have cut the path.
async fn with_slash(request: HttpRequest) -> HttpResponse {
    let last = request.path().rsplit('/').next().unwrap_or_default();
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, format!("{last}/"))).finish()
}
