//! A fleet inside an actix-web application: a pipeline for each tenant, all in this process.
//!
//! A tenant that is added while the application runs gets its pipeline by `FleetHandle::set`.
//!
//!     cargo run --example fleet -- localhost:9092 acme=postgresql://postgres@localhost/acme
//!     curl localhost:8080/relay/status.json

use std::net::TcpListener;

use actix_web::{App, HttpServer, web};
use factlib::{Fleet, Pipeline, config::Config};

/// Relays the databases of these tenants, each given as its name and its connection string.
pub async fn serve(
    shared: Config,
    tenants: Vec<(String, String)>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), Box<dyn std::error::Error>> {
    let fleet = Fleet::builder().start()?;
    for (tenant, url) in tenants {
        let mut config = shared.clone();
        config.postgres.url = url.into();
        config.postgres.slot = format!("factlib_{tenant}");
        config.kafka.topic_prefix = Some(tenant.clone());
        fleet.set(tenant, move || Ok(Pipeline::builder().config(config.clone())));
    }
    let routes = fleet.routes();
    let app = move || {
        App::new()
            .route("/", web::get().to(async || "the application"))
            // The list is at /relay/, the page of a tenant at /relay/pipelines/acme/.
            .service(routes.scope("/relay"))
    };
    let server = HttpServer::new(app).workers(1).disable_signals().listen(listener)?.run();
    let handle = server.handle();
    let serving = actix_rt::spawn(server);
    stop.await;
    let ended = fleet.shutdown().await;
    handle.stop(true).await;
    serving.await??;
    Ok(ended?)
}

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut shared = Config::default();
    shared.kafka.brokers = vec![arguments.next().ok_or("give a broker")?];
    let tenants = arguments.map(|argument| {
        let (tenant, url) = argument.split_once('=').ok_or("give NAME=CONNECTION_STRING")?;
        Ok((tenant.to_owned(), url.to_owned()))
    });
    let tenants = tenants.collect::<Result<_, &str>>()?;
    let listener = TcpListener::bind("127.0.0.1:8080")?;
    serve(shared, tenants, listener, async { drop(tokio::signal::ctrl_c().await) }).await
}
