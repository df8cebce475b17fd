//! Processes, and the folder they work in, that cannot outlive this process.
//!
//! **Life cycle.** A [`ServerHome`] is a temporary folder and a guard: a shell
//! that reads the pids of the children from a pipe. The pipe closes when the
//! home is dropped, when a test panics and when this process is killed, and the
//! guard then stops the children and removes the folder: one way out for all.
//! A child waits for our word before it turns into its program, and we give it
//! only after the guard knows its pid, so no moment is left for one to escape.
//!
//! Nothing here belongs to a runtime: a thread waits for each child, so a
//! server that one test started serves the tests on other runtimes too.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid, User},
};
use tokio::sync::watch;

use crate::{Error, ErrorKind, Result};

/// What of a log goes into an error message.
const LOG_TAIL_BYTES: u64 = 4096;

/// Unix socket paths end at 104 bytes on some systems; PostgreSQL's own part takes 20.
const LONGEST_PARENT: usize = 60;

/// The user that a server runs as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// Whom to become where root may not be: `postgres` or `nobody`; `None` unless we are root.
    pub(super) fn instead_of_root() -> Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            if let Ok(Some(user)) = User::from_name(name) {
                return Ok(Some(Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() }));
            }
        }
        Err(Error::new(
            ErrorKind::Config,
            "PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody",
        )
        .remedy("add one: useradd --system postgres"))
    }

    /// Gives the file or folder to this user.
    pub(super) fn give(self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .map_err(|cause| file_error("cannot change the owner of", path, cause))
    }
}

/// A temporary folder and the processes in it, which all end together.
#[derive(Debug)]
pub(super) struct ServerHome {
    path: PathBuf,
    ledger: Ledger,
    guard: Child,
}

/// The pipe to the guard; `None` when the home is being given up.
type Ledger = Arc<Mutex<Option<ChildStdin>>>;

impl ServerHome {
    /// Makes the folder and starts its guard, which will ask the children to end with `parting`.
    pub(super) fn create(prefix: &str, parting: Signal) -> Result<Self> {
        let parent = Some(std::env::temp_dir())
            .filter(|path| path.as_os_str().len() <= LONGEST_PARENT)
            .unwrap_or_else(|| PathBuf::from("/tmp"));
        let folder = tempfile::Builder::new()
            .prefix(&format!("factlib-{prefix}-"))
            .tempdir_in(&parent)
            .map_err(|cause| file_error("cannot make a folder in", &parent, cause))?;
        let signal = parting.as_str().trim_start_matches("SIG");
        let mut guard = Command::new("sh")
            .args(["-c", include_str!("guard.sh"), "factlib-guard"])
            .args([folder.path().as_os_str(), OsStr::new(signal)])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C goes to the whole group in the foreground; the guard has to outlive it.
            .process_group(0)
            .spawn()
            .map_err(|cause| file_error("cannot start a guard for", folder.path(), cause))?;
        let ledger = Arc::new(Mutex::new(guard.stdin.take()));
        Ok(ServerHome { path: folder.keep(), ledger, guard })
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file of the folder.
    pub(super) fn write(&self, name: impl AsRef<Path>, text: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path.join(name);
        match fs::write(&path, text) {
            Ok(()) => Ok(path),
            Err(cause) => Err(file_error("cannot write", &path, cause)),
        }
    }

    /// Starts a program in the folder; it appends what it prints to `<name>.log`.
    pub(super) fn spawn(
        &self,
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = impl Into<OsString>>,
        owner: Option<Owner>,
    ) -> Result<GuardedChild> {
        let failed = |cause| file_error("cannot start", program, cause);
        let log = self.path.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).map_err(failed)?;
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"read -r go && exec "$@" </dev/null"#, "sh"])
            .arg(program)
            .args(args.into_iter().map(Into::into))
            .current_dir(&self.path)
            .stdin(Stdio::piped())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output)
            .process_group(0);
        if let Some(Owner { uid, gid }) = owner {
            command.uid(uid).gid(gid);
        }
        let mut child = command.spawn().map_err(failed)?;
        let go = child.stdin.take();
        let pid = child.id();
        note(&self.ledger, '+', pid);
        let (told, exit) = watch::channel(None);
        let ledger = Arc::clone(&self.ledger);
        thread::spawn(move || {
            let status = child.wait();
            note(&ledger, '-', pid);
            told.send_replace(Some(status.unwrap_or_default()));
        });
        if let Some(mut go) = go {
            go.write_all(b"go\n").map_err(failed)?;
        }
        Ok(GuardedChild { pid, exit, log })
    }
}

impl Drop for ServerHome {
    fn drop(&mut self) {
        drop(self.ledger.lock().unwrap_or_else(PoisonError::into_inner).take());
        // An error would mean that the guard was waited for already.
        self.guard.wait().ok();
    }
}

/// Tells the guard of a child; a guard that is gone has no more use for it.
fn note(ledger: &Ledger, change: char, pid: u32) {
    if let Some(pipe) = &mut *ledger.lock().unwrap_or_else(PoisonError::into_inner) {
        writeln!(pipe, "{change} {pid}").ok();
    }
}

/// A process of a [`ServerHome`], which ends it.
#[derive(Clone, Debug)]
pub(super) struct GuardedChild {
    pid: u32,
    exit: watch::Receiver<Option<ExitStatus>>,
    log: PathBuf,
}

impl GuardedChild {
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn is_running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Sends a signal, unless the process has ended.
    pub(super) fn signal(&self, signal: Signal) {
        if self.is_running() {
            // The one possible error is that it ended just now.
            kill(Pid::from_raw(self.pid.cast_signed()), signal).ok();
        }
    }

    /// Waits for the end of the process.
    pub(super) async fn exited(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await.map(|status| *status);
        status.ok().flatten().unwrap_or_default()
    }

    /// Waits for the end of the process; past the limit it is killed.
    pub(super) async fn exited_or_killed(&self, limit: Duration) -> ExitStatus {
        match tokio::time::timeout(limit, self.exited()).await {
            Ok(status) => status,
            Err(_) => {
                self.signal(Signal::SIGKILL);
                self.exited().await
            }
        }
    }

    /// The end of what the process printed.
    pub(super) fn log_tail(&self) -> String {
        let read = || {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            std::io::Result::Ok(String::from_utf8_lossy(&tail).into_owned())
        };
        read().unwrap_or_else(|error| format!("(no log: {error})"))
    }
}

/// Takes everyone's access to a file but its owner's.
pub(super) fn make_private(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(|cause| file_error("cannot change the mode of", path, cause))
}

/// An error about a file, folder or program of a throwaway server.
pub(super) fn file_error(what: &str, path: &Path, cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Config, format!("{what} {}", path.display())).caused_by(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(home: &ServerHome) -> GuardedChild {
        home.spawn("sleep", Path::new("sleep"), ["1000"], None).unwrap()
    }

    #[tokio::test]
    async fn dropping_the_home_ends_its_children_and_removes_the_folder() {
        let home = ServerHome::create("test", Signal::SIGTERM).unwrap();
        let path = home.path().to_owned();
        let (running, paused) = (sleeper(&home), sleeper(&home));
        paused.signal(Signal::SIGSTOP);
        drop(home);
        running.exited().await;
        paused.exited().await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_child_that_ignores_the_polite_signal_is_killed() {
        let home = ServerHome::create("test", Signal::SIGTERM).unwrap();
        let script = "trap '' TERM; echo deaf; while :; do sleep 0.1; done";
        let child = home.spawn("deaf", Path::new("sh"), ["-c", script], None).unwrap();
        child.signal(Signal::SIGTERM);
        let status = child.exited_or_killed(Duration::from_millis(50)).await;
        assert!(!status.success());
    }

    #[tokio::test]
    async fn what_a_child_prints_is_in_its_log() {
        let home = ServerHome::create("test", Signal::SIGTERM).unwrap();
        let child = home.spawn("echo", Path::new("echo"), ["hello"], None).unwrap();
        assert!(child.exited().await.success());
        assert_eq!(child.log_tail(), "hello\n");
    }
}
