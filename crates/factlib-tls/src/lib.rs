#![doc = include_str!("../README.md")]
//!
//! | module | contents |
//! | --- | --- |
//! | [`authorities`] | trusted certificates, from the system or PEM; revocation lists |
//! | [`identity`] | our own certificate and its key |
//! | [`Options`] | a connection's settings, made into a configuration of rustls |
//! | [`refusal`] | explains why a certificate or a handshake failed, ours or the peer's |

pub mod authorities;
mod certificate;
pub mod identity;
mod options;
pub mod refusal;
mod verifier;

pub use certificate::tls_server_end_point;
pub use options::{Options, Verification, Version, connect, server_name};
pub use rustls::{self, ClientConfig, pki_types::ServerName};
pub use tokio_rustls::client::TlsStream;
