//! What the command writes itself, beside the log.

use std::{
    io::{ErrorKind as IoKind, Write},
    panic,
};

use factlib::{Error, ErrorKind, Result};

/// Writes `text` to stdout. A reader that has seen enough (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes()).map(|_| ())
}

/// Writes `bytes` to stdout; `false` when the reader has seen enough.
pub fn print_bytes(bytes: &[u8]) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == IoKind::BrokenPipe => Ok(false),
        Err(error) => {
            Err(Error::new(ErrorKind::Config, "cannot write to standard output").caused_by(error))
        }
    }
}

/// A value as JSON, with a line end.
pub fn json(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    let text =
        text.map_err(|error| Error::new(ErrorKind::Config, "cannot write JSON").caused_by(error))?;
    Ok(text + "\n")
}

/// Names and values, a line each, aligned.
pub fn table(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    lines.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// Writes one line to stderr, whatever is in `text`.
pub fn complain(text: &str) {
    let line = text.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty());
    // With stderr gone, the exit code has to do.
    let _ = writeln!(std::io::stderr(), "factlib: {}", line.collect::<Vec<_>>().join(" "));
}

/// A panic is one line, not a stack trace; in an actor it is a failure like any
/// other, and the pipeline goes on.
pub fn panics_in_one_line() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(|at| format!(" at {at}")).unwrap_or_default();
        let text = info.payload().downcast_ref::<&str>().copied();
        let text = text.or_else(|| info.payload().downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no message");
        complain(&format!(
            "panicked{place}: {text} (this is a defect of factlib, please report it)"
        ));
    }));
}
