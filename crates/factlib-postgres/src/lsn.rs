//! [`Lsn`], a position in PostgreSQL's write-ahead log.

use std::{fmt, str::FromStr};

#[cfg(feature = "serde")]
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio_postgres::types::PgLsn;

/// A byte position in the write-ahead log, as PostgreSQL's `pg_lsn`.
///
/// Its text is `16/B374D848`: the high and the low 32 bits in hexadecimal.
///
/// ```
/// use factlib_postgres::Lsn;
/// let lsn: Lsn = "16/B374D848".parse()?;
/// assert_eq!(lsn.to_string(), "16/B374D848");
/// assert_eq!(lsn.distance_from("16/B374D840".parse()?), 8);
/// # Ok::<(), factlib_postgres::ParseLsnError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

impl Lsn {
    /// The lowest position, which PostgreSQL calls invalid.
    pub const ZERO: Lsn = Lsn(0);

    /// Size of the buffer for [`encode`](Self::encode).
    pub const TEXT_BYTES: usize = 18;

    /// Takes a byte offset from the beginning of the log.
    pub const fn new(position: u64) -> Self {
        Lsn(position)
    }

    /// Returns the byte offset from the beginning of the log.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Writes the text to a buffer, and returns it; faster than formatting it.
    pub fn encode(self, buffer: &mut [u8; Self::TEXT_BYTES]) -> &str {
        let mut begin = buffer.len();
        let mut prepend = |byte| {
            begin -= 1;
            buffer[begin] = byte;
        };
        // The low half first: the text is written from its end.
        for half in [self.0 as u32, (self.0 >> 32) as u32] {
            let digits = (half.max(1).ilog2() / 4) + 1;
            (0..digits).for_each(|digit| prepend(DIGITS[(half >> (4 * digit) & 0xf) as usize]));
            prepend(b'/');
        }
        std::str::from_utf8(&buffer[begin + 1..]).unwrap_or_default()
    }

    /// Returns the bytes from `earlier` to this position; 0 if `earlier` is not earlier.
    pub const fn distance_from(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encode(&mut [0; Lsn::TEXT_BYTES]))
    }
}

/// Error for a text that is not a position such as `16/B374D848`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a WAL position: {0:?} (expected two hexadecimal numbers, such as 16/B374D848)")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn(u64::from(half(high)?) << 32 | u64::from(half(low)?))))
            .ok_or_else(|| ParseLsnError(text.to_owned()))
    }
}

impl From<PgLsn> for Lsn {
    fn from(lsn: PgLsn) -> Self {
        Lsn(lsn.into())
    }
}

impl From<Lsn> for PgLsn {
    fn from(lsn: Lsn) -> Self {
        PgLsn::from(lsn.0)
    }
}

#[cfg(feature = "serde")]
impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for position in [0, 1, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            let lsn = Lsn::new(position);
            assert_eq!(lsn.to_string().parse(), Ok(lsn));
        }
        assert_eq!(Lsn::ZERO.to_string(), "0/0");
        assert_eq!(Lsn::new(0xa0_0000_0b10).to_string(), "A0/B10");
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in ["", "/", "1", "1/", "/1", "G/1", "1/+1", "100000000/0", "1/2/3", " 1/2"] {
            let error = text.parse::<Lsn>().expect_err(text).to_string();
            let expected = "expected two hexadecimal numbers, such as 16/B374D848";
            assert_eq!(error, format!("not a WAL position: {text:?} ({expected})"));
        }
    }
}
