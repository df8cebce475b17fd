//! Ports for throwaway servers.
//!
//! They lie below the range of ephemeral ports. With an ephemeral port, a client that keeps
//! connecting to a stopped server could get that very port, connect to itself, and keep the
//! server from starting again.

use std::{
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
};

use crate::{Error, ErrorKind, Result};

const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// Returns a port of 127.0.0.1 on which nothing listens; each port is returned once per process.
pub(crate) fn free_port() -> Result<u16> {
    // A random start keeps parallel processes apart.
    static NEXT: LazyLock<AtomicU16> =
        LazyLock::new(|| AtomicU16::new(RandomState::new().hash_one("port") as u16));
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::new(ErrorKind::Setup, "no free port between 12000 and 32000 on 127.0.0.1"))
}
