//! A relay inside an actix-web application, which has its health and metrics among its own
//! routes and ends it in order.
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
    let pipeline = Pipeline::builder().config(config).start().await?;
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
    tokio::select! {
        ended = pipeline.wait() => ended?,
        () = stop => pipeline.shutdown().await?,
    }
    // Last: probes are answered while it ends.
    handle.stop(true).await;
    serving.await??;
    Ok(())
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
