//! What is shipped beside the binary says what the binary says.

mod compose;
#[cfg(target_os = "linux")]
mod deb;
mod features;
mod fleet;
mod helm;
mod image;
#[cfg(target_os = "linux")]
mod release;
mod settings;
