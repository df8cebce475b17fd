//! One wrong setting, and the one line that says so.

use crate::{Error, ErrorKind};

/// A setting that can't be used as it is.
#[derive(Debug)]
pub(crate) struct Mistake {
    /// Its full name, such as `kafka.compression`.
    pub setting: String,
    /// Its value as it may be shown; none when it is not set.
    pub value: Option<String>,
    /// What is wrong or what is allowed.
    pub problem: String,
}

impl Mistake {
    /// The error; `source` is where the value came from, where that is known.
    pub fn error(self, source: Option<&str>) -> Error {
        let Mistake { setting, value, problem } = self;
        let from = source.map(|source| format!(" from {source}")).unwrap_or_default();
        let value = value.map_or(" is not set".into(), |value| format!(" = {value}{from}"));
        Error::new(ErrorKind::Config, format!("{setting}{value}: {problem}"))
    }
}
