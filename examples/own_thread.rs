//! A relay inside a program of plain tokio, such as one with axum: it has a thread of its own.
//!
//!     cargo run --example own_thread -- postgresql://postgres@localhost/shop localhost:9092

use factlib::{Pipeline, config::Config};

pub async fn serve(
    mut config: Config,
    health_port: u16,
    stop: impl Future<Output = ()>,
) -> factlib::Result<()> {
    // Health and metrics on a port of the relay's own; or answer from `pipeline.status()`.
    config.http.health_port = Some(health_port);
    config.http.metrics_port = Some(health_port);
    let pipeline = Pipeline::builder().config(config).start_on_own_thread().await?;
    // Here `axum::serve(listener, app).with_graceful_shutdown(…)` would run beside it.
    tokio::select! {
        ended = pipeline.wait() => ended,
        () = stop => pipeline.shutdown().await,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> factlib::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut config = Config::default();
    if let Some(url) = arguments.next() {
        config.postgres.url = url.into();
    }
    config.kafka.brokers = arguments.collect();
    serve(config, 8080, async { drop(tokio::signal::ctrl_c().await) }).await
}
