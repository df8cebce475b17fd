//! What the command writes itself, beside the log.

use std::{
    io::{ErrorKind as IoKind, Write},
    panic,
};

use factlib::{Error, ErrorKind, Result};

/// Writes `text` to stdout. A reader that has seen enough (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != IoKind::BrokenPipe => {
            Err(Error::new(ErrorKind::Config, "cannot write to standard output").caused_by(error))
        }
        _ => Ok(()),
    }
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
