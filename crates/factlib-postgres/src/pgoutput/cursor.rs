//! Reads fields of a message one after the other, with every length checked.

use super::ParseError;
use crate::Lsn;

/// The unread rest of a message.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes, offset: 0 }
    }

    #[inline]
    pub fn take(&mut self, count: usize, expected: &'static str) -> Result<&'a [u8], ParseError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.error(expected));
        };
        self.rest = rest;
        self.offset += count;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], ParseError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.error(expected));
        };
        self.rest = rest;
        self.offset += N;
        Ok(*taken)
    }

    #[inline]
    pub fn u8(&mut self, expected: &'static str) -> Result<u8, ParseError> {
        self.array(expected).map(u8::from_be_bytes)
    }

    #[inline]
    pub fn u16(&mut self, expected: &'static str) -> Result<u16, ParseError> {
        self.array(expected).map(u16::from_be_bytes)
    }

    #[inline]
    pub fn u32(&mut self, expected: &'static str) -> Result<u32, ParseError> {
        self.array(expected).map(u32::from_be_bytes)
    }

    #[inline]
    pub fn i64(&mut self, expected: &'static str) -> Result<i64, ParseError> {
        self.array(expected).map(i64::from_be_bytes)
    }

    #[inline]
    pub fn lsn(&mut self, expected: &'static str) -> Result<Lsn, ParseError> {
        self.array(expected).map(u64::from_be_bytes).map(Lsn::new)
    }

    /// Reads a length and that many bytes.
    #[inline]
    pub fn counted(&mut self, expected: &'static str) -> Result<&'a [u8], ParseError> {
        let count = self.u32(expected)?;
        // If usize is smaller than u32, no slice is that long.
        self.take(usize::try_from(count).unwrap_or(usize::MAX), expected)
    }

    /// Reads text up to a zero byte.
    ///
    /// It is UTF-8 unless the database has no encoding (`SQL_ASCII`). Text that is not UTF-8 is read
    /// as a replacement character, so that the stream goes on; no prefix or name in use equals it.
    #[inline]
    pub fn text(&mut self, expected: &'static str) -> Result<&'a str, ParseError> {
        self.bytes_to_zero(expected).map(|text| std::str::from_utf8(text).unwrap_or("\u{fffd}"))
    }

    /// Reads bytes up to a zero byte.
    #[inline]
    pub fn bytes_to_zero(&mut self, expected: &'static str) -> Result<&'a [u8], ParseError> {
        let Some(length) = self.rest.iter().position(|byte| *byte == 0) else {
            return Err(self.error(expected));
        };
        let text = self.take(length, expected)?;
        self.take(1, expected)?;
        Ok(text)
    }

    /// Returns the unread bytes.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Returns the bytes read since `earlier`, which must be an earlier state of this cursor.
    pub fn since(self, earlier: Cursor<'a>) -> &'a [u8] {
        let length = self.offset.saturating_sub(earlier.offset);
        earlier.rest.get(..length).unwrap_or_default()
    }

    #[inline]
    pub fn end(self) -> Result<(), ParseError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error("the end of the message")) }
    }

    #[cold]
    pub fn error(self, expected: &'static str) -> ParseError {
        ParseError::Expected { expected, offset: self.offset }
    }
}
