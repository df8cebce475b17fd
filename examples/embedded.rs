//! A relay inside an actix-web application, which has its health and metrics among its own
//! routes and ends it in order.
//!
//! The server answers before the relay has connected, and while it stands by: of several
//! replicas of the application, one relays and the others wait for their turn. Is a replica
//! ready? The application says so by its own routes, never by `/relay/readyz`: that is 503
//! where another replica relays.
//!
//!     cargo run --example embedded -- postgresql://postgres@localhost/shop localhost:9092

use std::net::TcpListener;

use actix_web::{App, HttpServer, web};
use factlib::{Pipeline, config::Config};

pub async fn serve(
    config: Config,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), Box<dyn std::error::Error>> {
    // Waits for no server, so that the application's own one can start.
    let pipeline = Pipeline::builder().config(config).start_in_background().await?;
    let routes = pipeline.routes();
    let app = move || {
        App::new()
            .route("/", web::get().to(async || "the application"))
            .service(routes.scope("/relay"))
    };
    // The signals are the application's; the relay has none.
    let server = HttpServer::new(app).workers(1).disable_signals().listen(listener)?.run();
    let handle = server.handle();
    let serving = actix_rt::spawn(server);
    let ended = tokio::select! {
        // What can't get better by itself: its error names the remedy.
        ended = pipeline.wait() => ended,
        () = stop => pipeline.shutdown().await,
    };
    // Last: requests and probes are answered while it ends.
    handle.stop(true).await;
    serving.await??;
    Ok(ended?)
}

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut config = Config::default();
    config.postgres.url = arguments.next().ok_or("give a connection string")?.into();
    config.kafka.brokers = arguments.collect();
    let listener = TcpListener::bind("127.0.0.1:8080")?;
    serve(config, listener, async { drop(tokio::signal::ctrl_c().await) }).await
}
