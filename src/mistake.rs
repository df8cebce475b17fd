//! Describes a wrong setting and turns it into an error of one line.

use crate::{Error, ErrorKind};

/// A setting with an unusable value.
#[derive(Debug)]
pub(crate) struct Mistake {
    /// Full name, such as `kafka.compression`.
    pub setting: String,
    /// Value as it may be shown; `None` if it is not set.
    pub value: Option<String>,
    /// Description of what is wrong, or of what is allowed.
    pub problem: String,
}

impl Mistake {
    /// Makes the error; `source` is the value's source, if known.
    pub fn error(self, source: Option<&str>) -> Error {
        let Mistake { setting, value, problem } = self;
        let from = source.map(|source| format!(" from {source}")).unwrap_or_default();
        let value = value.map_or(" is not set".into(), |value| format!(" = {value}{from}"));
        Error::new(ErrorKind::Config, format!("{setting}{value}: {problem}"))
    }
}
