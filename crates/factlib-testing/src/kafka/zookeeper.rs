//! The ZooKeeper of a Kafka before 3.0, and the properties that such brokers do not take.

use super::install::Java;
use crate::{Result, ports::free_port, process::ServerHome};

/// Properties of KRaft alone.
pub(super) const KRAFT_ONLY: [&str; 2] = ["process.roles", "controller.listener.names"];

/// Starts ZooKeeper in this folder; returns its address. Brokers wait until it serves.
pub(super) fn start(java: &Java, home: &ServerHome) -> Result<String> {
    let port = free_port()?;
    let data = home.path().join("zookeeper").display().to_string();
    let settings = format!(
        "dataDir={data}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n"
    );
    let file = home.write("zookeeper.properties", settings)?.display().to_string();
    let class = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
    java.spawn(home, "zookeeper", &[class, &file])?;
    Ok(format!("127.0.0.1:{port}"))
}
