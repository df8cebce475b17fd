//! A disk that can be full: a small file system of its own, or what comes close to it.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use factlib::testing::Program;
use tempfile::TempDir;
use tokio::time::sleep;

const MOUNT: &str =
    "mount -t tmpfs -o size=64k factlib \"$0\" && : > \"$0/mounted\" && exec sleep infinity";

/// Where no file system can be mounted, a link to the device that is always full.
const ALWAYS_FULL: &str = "/dev/full";

/// A folder on a disk that the test can fill.
pub struct SmallDisk {
    path: PathBuf,
    /// Lives in the namespace of the mount, which ends with it.
    mounted: Option<Program>,
    _folder: TempDir,
}

impl SmallDisk {
    /// In a mount namespace: as root, or as root of a user namespace.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for options in [&["--mount"][..], &["--user", "--map-root-user", "--mount"]] {
            let words = options.iter().copied().chain(["sh", "-c", MOUNT]);
            let mut words: Vec<String> = words.map(Into::into).collect();
            words.push(folder.path().display().to_string());
            let variables = [("PATH".into(), std::env::var("PATH").unwrap_or_default())];
            let Ok(holder) = Program::start(Path::new("unshare"), &words, &variables) else {
                continue;
            };
            let inside = folder.path().strip_prefix("/").expect("an absolute path");
            let path = PathBuf::from(format!("/proc/{}/root", holder.pid())).join(inside);
            let begin = Instant::now();
            while holder.is_running() && begin.elapsed() < Duration::from_secs(20) {
                if path.join("mounted").exists() {
                    return SmallDisk { path, mounted: Some(holder), _folder: folder };
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
        SmallDisk { path: folder.path().into(), mounted: None, _folder: folder }
    }

    /// Where the checkpoint is kept.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join("position")
    }

    /// Takes all room from the next file.
    pub fn fill(&self) {
        match &self.mounted {
            Some(_) => {
                let filler = fs::write(self.path.join("filler"), vec![0; 1 << 20]);
                assert_eq!(filler.expect_err("1 MB in 64 KB").kind(), ErrorKind::StorageFull);
            }
            None => std::os::unix::fs::symlink(ALWAYS_FULL, self.new_file()).expect("a link"),
        }
    }

    /// Gives the room back.
    pub fn free(&self) {
        let in_the_way = match &self.mounted {
            Some(_) => self.path.join("filler"),
            None => self.new_file(),
        };
        fs::remove_file(in_the_way).expect("removed");
    }

    /// What is full, for the table.
    pub fn describe(&self) -> &'static str {
        match &self.mounted {
            Some(_) => "a file system of 64 KB",
            None => "NO FILE SYSTEM COULD BE MOUNTED HERE: /dev/full stood for a full one",
        }
    }

    /// What the store writes before it renames.
    fn new_file(&self) -> PathBuf {
        self.path.join("position.new")
    }
}
