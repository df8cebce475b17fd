//! What an operator trusts: who is let in, who is believed, what is shown, what a role may do,
//! and who takes over. The real binary on real servers.

#[path = "../support/mod.rs"]
mod support;

mod connection;
mod kafka_tls;
mod postgres_tls;
mod privileges;
mod secrets;
mod takeover;

use std::{fs, path::PathBuf, sync::Arc};

use tempfile::TempDir;

use self::support::{Bed, relay::Launch};

/// The binary, as it is started for this bed. What it tries for ever is never given up, so that
/// only what it knows to be final ends it.
fn launch(bed: &Bed<'_>) -> Launch {
    Launch::new(bed, Arc::default()).set("pipeline.startup_timeout", "0s")
}

/// Ends by itself with this exit code, and its last line says all of `parts`.
async fn refused(launch: &Launch, code: i32, parts: &[&str]) -> String {
    let (ended, line) = launch.spawn().ended().await;
    assert_eq!(ended, Some(code), "{line}");
    let complaint =
        line.strip_prefix("factlib: ").unwrap_or_else(|| panic!("no complaint: {line}"));
    for part in parts {
        assert!(complaint.contains(part), "{part:?} is not in: {complaint}");
    }
    println!("{complaint}");
    complaint.to_owned()
}

/// Files of a test, gone with it.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Files(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Writes a file that only its owner may read, and gives its path.
    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path: PathBuf = self.0.path().join(name);
        fs::write(&path, text).expect("written");
        self.mode(name, 0o600);
        path.display().to_string()
    }

    fn mode(&self, name: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        let permissions = PermissionsExt::from_mode(mode);
        fs::set_permissions(self.0.path().join(name), permissions).expect("changed");
    }
}
