//! Child processes, and their folder, that cannot outlive this process.
//!
//! **Life cycle.** A [`ServerHome`] is a temporary folder and a guard: a shell that reads the pids of
//! the children from a pipe. The pipe closes when the home is dropped, when a test panics and when
//! this process is killed; the guard then stops the children and removes the folder. A child waits
//! for a line on its standard input before it executes its program, and gets it only after its
//! pid is in the guard's pipe, so no child can escape.
//!
//! Nothing here belongs to a runtime: a thread waits for each child, so a server that one test
//! started serves tests on other runtimes too.

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

/// Length of the end of a log that an error quotes.
const LOG_TAIL_BYTES: u64 = 4096;

/// Unix socket paths have at most 104 bytes on some systems; PostgreSQL's own part takes 20.
const LONGEST_PARENT: usize = 60;

/// The user that a server runs as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// Returns the user to run as in place of root: `postgres` or `nobody`; `None` unless this process
    /// runs as root.
    pub(crate) fn instead_of_root() -> Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            if let Ok(Some(user)) = User::from_name(name) {
                return Ok(Some(Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() }));
            }
        }
        Err(Error::new(
            ErrorKind::Setup,
            "PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody",
        )
        .remedy("add one: useradd --system postgres"))
    }

    /// Gives the file or folder to this user.
    pub(crate) fn give(self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .map_err(|cause| file_error("cannot change the owner of", path, cause))
    }
}

/// A temporary folder and the processes in it, which end together.
#[derive(Debug)]
pub(crate) struct ServerHome {
    path: PathBuf,
    pipe: GuardPipe,
    guard: Child,
}

/// The pipe to the guard; `None` once the home is dropped.
type GuardPipe = Arc<Mutex<Option<ChildStdin>>>;

impl ServerHome {
    /// Makes the folder and starts its guard, which sends the children the signal `stop` at the end.
    pub(crate) fn create(prefix: &str, stop: Signal) -> Result<Self> {
        let parent = Some(std::env::temp_dir())
            .filter(|path| path.as_os_str().len() <= LONGEST_PARENT)
            .unwrap_or_else(|| PathBuf::from("/tmp"));
        let folder = tempfile::Builder::new()
            .prefix(&format!("factlib-{prefix}-"))
            .tempdir_in(&parent)
            .map_err(|cause| file_error("cannot make a folder in", &parent, cause))?;
        let signal = stop.as_str().trim_start_matches("SIG");
        let mut guard = Command::new("sh")
            .args(["-c", include_str!("guard.sh"), "factlib-guard"])
            .args([folder.path().as_os_str(), OsStr::new(signal)])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C goes to the whole foreground group; the guard must survive it.
            .process_group(0)
            .spawn()
            .map_err(|cause| file_error("cannot start a guard for", folder.path(), cause))?;
        let pipe = Arc::new(Mutex::new(guard.stdin.take()));
        Ok(ServerHome { path: folder.keep(), pipe, guard })
    }

    /// Returns the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file in the folder.
    pub(crate) fn write(&self, name: impl AsRef<Path>, text: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path.join(name);
        match fs::write(&path, text) {
            Ok(()) => Ok(path),
            Err(cause) => Err(file_error("cannot write", &path, cause)),
        }
    }

    /// Starts a program in the folder; its output is appended to `<name>.log`.
    pub(crate) fn spawn(
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
        note(&self.pipe, '+', pid);
        let (status_sender, exit) = watch::channel(None);
        let pipe = Arc::clone(&self.pipe);
        thread::spawn(move || {
            let status = child.wait();
            note(&pipe, '-', pid);
            status_sender.send_replace(Some(status.unwrap_or_default()));
        });
        if let Some(mut go) = go {
            go.write_all(b"go\n").map_err(failed)?;
        }
        Ok(GuardedChild { pid, exit, log })
    }
}

impl Drop for ServerHome {
    fn drop(&mut self) {
        drop(self.pipe.lock().unwrap_or_else(PoisonError::into_inner).take());
        // An error means that the guard was waited for already.
        self.guard.wait().ok();
    }
}

/// Tells the guard of a child; a write to a guard that has ended may fail.
fn note(pipe: &GuardPipe, change: char, pid: u32) {
    if let Some(pipe) = &mut *pipe.lock().unwrap_or_else(PoisonError::into_inner) {
        writeln!(pipe, "{change} {pid}").ok();
    }
}

/// A process of a [`ServerHome`], whose end ends it.
#[derive(Clone, Debug)]
pub(crate) struct GuardedChild {
    pid: u32,
    exit: watch::Receiver<Option<ExitStatus>>,
    log: PathBuf,
}

impl GuardedChild {
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn is_running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Sends a signal, unless the process has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.is_running() {
            // The only possible error is that it has just ended.
            kill(Pid::from_raw(self.pid.cast_signed()), signal).ok();
        }
    }

    /// Waits for the end of the process.
    pub(crate) async fn exited(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await.map(|status| *status);
        status.ok().flatten().unwrap_or_default()
    }

    /// Waits for the end of the process; past the limit it is killed.
    pub(crate) async fn exited_or_killed(&self, limit: Duration) -> ExitStatus {
        match tokio::time::timeout(limit, self.exited()).await {
            Ok(status) => status,
            Err(_) => {
                self.signal(Signal::SIGKILL);
                self.exited().await
            }
        }
    }

    /// Returns the end of the process's output.
    pub(crate) fn log_tail(&self) -> String {
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

/// Leaves only the owner's access to a file.
pub(crate) fn make_private(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(|cause| file_error("cannot change the mode of", path, cause))
}

/// Makes an error about a file, folder or program of a server.
pub(crate) fn file_error(what: &str, path: &Path, cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Setup, format!("{what} {}", path.display())).caused_by(cause)
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
