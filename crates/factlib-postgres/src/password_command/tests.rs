//! Runs commands that print, fail, hang and leave processes behind.

use std::{fs, time::Instant};

use secrecy::ExposeSecret;

use super::*;

const VARIABLES: &Variables<'static> = &[("PGHOST", "db"), ("PGUSER", "relay")];

async fn run(command: PasswordCommand) -> Result<String, String> {
    let password = command.run(VARIABLES).await;
    password.map(|password| password.expose_secret().into()).map_err(|error| {
        assert!(error.is_transient(), "{error}");
        assert!(error.remedy().is_some(), "{error}");
        error.to_string()
    })
}

fn shell(script: &str) -> PasswordCommand {
    PasswordCommand::shell(script)
}

#[tokio::test]
async fn the_first_line_is_the_password() {
    for (script, password) in [
        ("echo one", "one"),
        ("printf 'two\\r\\nthree\\n'", "two"),
        ("printf ' spaces stay '", " spaces stay "),
        ("echo four; echo not shown >&2", "four"),
        ("echo five; yes | head -c 1000000", "five"),
        ("echo $PGUSER@$PGHOST", "relay@db"),
    ] {
        assert_eq!(run(shell(script)).await.as_deref(), Ok(password), "{script}");
    }
    let program = PasswordCommand::program("/bin/echo", ["$PGHOST; six"]);
    assert_eq!(run(program).await.as_deref(), Ok("$PGHOST; six"), "no shell is in between");
}

#[tokio::test]
async fn hidden_variables_are_not_passed_on() {
    // Cargo sets both for tests.
    let script = "echo ${CARGO_PKG_NAME-unset} ${CARGO_PKG_VERSION-unset}";
    let command = shell(script).hide(["CARGO_PKG_NAME"]);
    assert_eq!(run(command).await, Ok(format!("unset {}", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn a_failure_says_why_and_never_what_was_printed() {
    for (script, shown) in [
        (
            "echo hunter3; echo no rights for hunter3 >&2; exit 3",
            "failed (exit status: 3): no rights for [redacted]",
        ),
        ("kill -9 $$", "failed (signal: 9"),
        ("true", "printed no password"),
        ("echo; echo hunter3", "printed no password"),
        ("echo not logged in >&2", "printed no password: not logged in"),
        ("printf 'hunter3\\377'", "not UTF-8"),
    ] {
        let error = run(shell(script)).await.expect_err(script);
        assert!(error.starts_with("the password command ") && error.contains(shown), "{error}");
        assert!(!error.contains("hunter3"), "{error}");
    }
    let error = run(PasswordCommand::program("/nowhere/token", ["x"])).await.expect_err("none");
    let text = "the password command token cannot be started: No such file or directory";
    assert!(error.starts_with(text), "{error}");
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_what_it_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pid");
    let script = format!("sleep 300 & echo $! > {}; echo asks >&2; wait", file.display());
    let limit = Duration::from_millis(500);
    let error = run(shell(&script).limit(limit)).await.expect_err("too long");
    assert!(error.contains("has not ended within 500ms and was killed: asks ("), "{error}");
    let pid = fs::read_to_string(file).expect("it began");
    let process = Path::new("/proc").join(pid.trim()).join("cmdline");
    let until = Instant::now() + Duration::from_secs(60);
    // A process that ended has no command line, until its parent takes note of it.
    while fs::read(&process).is_ok_and(|line| !line.is_empty()) {
        assert!(Instant::now() < until, "sleep goes on as {pid}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_process_in_the_background_is_not_waited_for() {
    let begun = Instant::now();
    let command = shell("sleep 20 & echo one");
    assert_eq!(run(command).await.as_deref(), Ok("one"));
    assert!(begun.elapsed() < Duration::from_secs(10));
}
