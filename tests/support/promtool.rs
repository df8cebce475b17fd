//! promtool, Prometheus's own tool: it judges metrics and evaluates expressions.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

/// Runs it with this input.
///
/// # Errors
/// What it says.
pub fn promtool(arguments: &[&str], input: &str) -> Result<String, String> {
    let program = program();
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| {
        panic!("{}: {error}; scripts/bootstrap --tests gets it", program.display())
    });
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    if output.status.success() { Ok(said.concat()) } else { Err(said.concat()) }
}

/// Runs a test of rules or expressions.
///
/// # Errors
/// What promtool says, and what it was given.
pub fn test_rules(test: &str) -> Result<(), String> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), test).expect("written");
    let path = file.path().to_string_lossy();
    promtool(&["test", "rules", &path], "").map(drop).map_err(|said| format!("{said}\n{test}"))
}

/// The system's, or the one that scripts/bootstrap has fetched.
fn program() -> PathBuf {
    let cache = std::env::var_os("FACTLIB_CACHE").map(PathBuf::from);
    let cache =
        cache.unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".cache/factlib"));
    let fetched = cache.join("promtool/promtool");
    if fetched.is_file() { fetched } else { "promtool".into() }
}
