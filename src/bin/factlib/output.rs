//! Writes results to stdout and errors to stderr, apart from the log.

use std::{
    env,
    io::{ErrorKind as IoKind, IsTerminal, Write},
    panic,
};

use factlib::{Error, ErrorKind, Result};

/// Writes `text` to stdout. A closed pipe (`| head`) is not an error.
pub fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes()).map(|_| ())
}

/// Writes `bytes` to stdout; returns `false` if the reader closed the pipe.
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

/// True for a terminal, unless NO_COLOR is set (see no-color.org).
pub fn has_colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Formats a value as indented JSON with a final newline.
pub fn json(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    let text =
        text.map_err(|error| Error::new(ErrorKind::Config, "cannot write JSON").caused_by(error))?;
    Ok(text + "\n")
}

/// Formats names and values as aligned lines.
pub fn table(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    lines.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// Formats rows below a heading, in aligned columns.
pub fn columns(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let head = head.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let mut widths = vec![0; head.len()];
    let rows: Vec<_> = [head].into_iter().chain(rows).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Writes `factlib: ` and `text` to stderr, joined into one line.
pub fn print_error(text: &str) {
    let line = text.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty());
    // If stderr is closed, only the exit code is left.
    let _ = writeln!(std::io::stderr(), "factlib: {}", line.collect::<Vec<_>>().join(" "));
}

/// Makes a panic print one line without a stack trace. In an actor it is a failure like any other,
/// and the pipeline goes on.
pub fn print_panics_on_one_line() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(|at| format!(" at {at}")).unwrap_or_default();
        let text = info.payload().downcast_ref::<&str>().copied();
        let text = text.or_else(|| info.payload().downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no message");
        print_error(&format!(
            "panicked{place}: {text} (this is a defect of factlib, please report it)"
        ));
    }));
}
