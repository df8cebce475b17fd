//! Ports for throwaway servers.
//!
//! They lie below the range from which systems give ports to clients: a client
//! that keeps connecting to a stopped server on such a port can be given that
//! very port, connect to itself, and keep the server from coming back.

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

/// A port of 127.0.0.1 that nobody listens on; this process is given each of them once.
pub(super) fn free_port() -> Result<u16> {
    // Starting anywhere keeps processes that run side by side apart.
    static NEXT: LazyLock<AtomicU16> =
        LazyLock::new(|| AtomicU16::new(RandomState::new().hash_one("port") as u16));
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::new(ErrorKind::Config, "no free port between 12000 and 32000 on 127.0.0.1"))
}
