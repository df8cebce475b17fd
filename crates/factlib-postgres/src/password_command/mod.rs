//! Asks a command for the password, anew for each connection: the tokens of cloud providers expire
//! within minutes.
//!
//! # What the command gets
//! Nothing on its input; the environment of this process without the variables that are
//! [hidden](PasswordCommand::hide); and `PGHOST`, `PGPORT`, `PGUSER` and `PGDATABASE` of the
//! connection, because some tokens hold for one server and one user only.
//!
//! # Failure
//! Each failure is transient: the command is run again at the next attempt to connect. Its output is
//! never part of an error; its error output is, without what looks like a secret (`excerpt`).

mod excerpt;

use std::{
    ffi::OsString,
    io,
    path::Path,
    pin::pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::SecretString;
use tokio::{
    io::{AsyncRead, AsyncReadExt, copy, sink},
    process::{Child, Command},
    time::timeout,
};

use self::excerpt::excerpt;
use crate::{Error, ErrorKind, Result};

/// Default limit of a run.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes that are kept of the output; tokens have a few thousand.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;
/// Time to read what an ended command has left. A process that it started in the background may keep
/// the pipes open.
const REST_LIMIT: Duration = Duration::from_millis(200);

const EMPTY: &str = "it has to print the password as the first line of its output";
const RUN_IT: &str = "run it as this user and in this environment: it has to print the password as the \
                      first line of its output, and to end with status 0";

/// A command that prints a password.
#[derive(Clone, Debug)]
pub struct PasswordCommand {
    program: OsString,
    arguments: Vec<OsString>,
    /// Name in errors.
    name: String,
    limit: Duration,
    hidden: Vec<OsString>,
}

/// The variables of one connection.
pub(super) type Variables<'a> = [(&'static str, &'a str)];

impl PasswordCommand {
    /// Runs a program without a shell.
    pub fn program(
        program: impl Into<OsString>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        let program = program.into();
        let name = Path::new(&program).file_name().unwrap_or(&program).to_string_lossy();
        PasswordCommand {
            name: format!("the password command {name}"),
            program,
            arguments: arguments.into_iter().map(Into::into).collect(),
            limit: LIMIT,
            // The command is asked for it.
            hidden: vec!["PGPASSWORD".into()],
        }
    }

    /// Runs a text by `sh -c`.
    pub fn shell(script: impl Into<OsString>) -> Self {
        let command = PasswordCommand::program("sh", [OsString::from("-c"), script.into()]);
        PasswordCommand { name: "the password command".into(), ..command }
    }

    /// Sets the time after which a run is killed, with all processes that it started; ten seconds by
    /// default.
    pub fn limit(self, limit: Duration) -> Self {
        PasswordCommand { limit, ..self }
    }

    /// Hides these variables of the environment from the command. `PGPASSWORD` is always hidden.
    pub fn hide(mut self, variables: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.hidden.extend(variables.into_iter().map(Into::into));
        self
    }

    /// The name of the command in errors.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs the command and returns the first line of its output.
    pub(super) async fn run(&self, variables: &Variables<'_>) -> Result<SecretString> {
        let mut child = self
            .command(variables)
            .spawn()
            .map_err(|error| self.error("cannot be started", CORRECT).caused_by(error))?;
        let mut group = ProcessGroup::of(&child);
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let ended = timeout(self.limit, collect(&mut child, &mut output, &mut errors)).await;
        let line = output.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let said = excerpt(&String::from_utf8_lossy(&errors), &String::from_utf8_lossy(line));
        let said = if said.is_empty() { said } else { format!(": {said}") };
        let Ok(ended) = ended else {
            let what = format!("has not ended within {:?} and was killed{said}", self.limit);
            return Err(self.error(&what, "it gets no input: it must not ask for anything"));
        };
        group.ended();
        match ended {
            Err(error) => return Err(self.error("cannot be read", RUN_IT).caused_by(error)),
            Ok(status) if !status.success() => {
                return Err(self.error(&format!("failed ({status}){said}"), RUN_IT));
            }
            Ok(_) => {}
        }
        match std::str::from_utf8(line) {
            Ok("") => Err(self.error(&format!("printed no password{said}"), EMPTY)),
            Ok(password) => Ok(SecretString::from(password)),
            Err(_) => Err(self.error("printed a first line that is not UTF-8", EMPTY)),
        }
    }

    fn command(&self, variables: &Variables<'_>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        for name in &self.hidden {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that what a shell started is killed with it.
        command.process_group(0).kill_on_drop(true);
        command
    }

    fn error(&self, what: &str, remedy: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("{} {what}", self.name)).with_remedy(remedy)
    }
}

const CORRECT: &str = "name a program that this user may run, by its whole path";

/// Reads both outputs until the command has ended.
async fn collect(
    child: &mut Child,
    output: &mut Vec<u8>,
    errors: &mut Vec<u8>,
) -> io::Result<ExitStatus> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = async { tokio::join!(read(stdout, output), read(stderr, errors)) };
    let mut reading = pin!(reading);
    let status = tokio::select! {
        status = child.wait() => status,
        _ = &mut reading => return child.wait().await,
    };
    let _ = timeout(REST_LIMIT, reading).await;
    status
}

/// Keeps the beginning of a pipe's bytes, and discards the others.
async fn read(pipe: Option<impl AsyncRead + Unpin>, to: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let kept = (&mut pipe).take(OUTPUT_BYTES_MAX).read_to_end(to).await;
    if kept.is_ok() {
        let _ = copy(&mut pipe, &mut sink()).await;
    }
}

/// The process group of a command, which is killed when this is dropped before the command's end.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        ProcessGroup(id.and_then(Pid::from_raw))
    }

    fn ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests;
