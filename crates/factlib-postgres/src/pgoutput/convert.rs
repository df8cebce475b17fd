//! Converts the texts of pgoutput messages to UTF-8, for databases in other encodings.

use bytes::{BufMut, BytesMut};

use super::{ParseError, cursor::Cursor, tuple::UNCONVERTIBLE};

impl super::Message<'_> {
    /// Converts the texts of a message with `utf8`; none if it has no texts to convert.
    ///
    /// A value that can't be converted becomes a [`Value::Unconvertible`](super::Value), unchanged.
    /// A name that can't be converted becomes one that nothing has. Values in binary stay as they
    /// are, and so do texts in binary: do not ask for [`binary`](crate::ReplicationOptions::binary)
    /// where texts have to be converted.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse).
    pub fn converted(
        data: &[u8],
        utf8: impl Fn(&[u8]) -> Option<String>,
    ) -> Result<Option<BytesMut>, ParseError> {
        let mut from = Cursor::new(data);
        let mut conversion = Conversion { to: BytesMut::new(), utf8 };
        let tag = from.u8("the message type")?;
        conversion.to.put_u8(tag);
        match tag {
            b'R' => conversion.relation(&mut from)?,
            b'Y' => {
                conversion.copy(&mut from, 4)?;
                conversion.name(&mut from)?;
                conversion.name(&mut from)?;
            }
            b'M' => {
                conversion.copy(&mut from, 9)?;
                // Nearly every prefix is ASCII; then the content need not be copied.
                if from.rest().iter().take_while(|byte| **byte != 0).all(u8::is_ascii) {
                    return Ok(None);
                }
                conversion.name(&mut from)?;
            }
            b'I' | b'U' | b'D' => {
                conversion.copy(&mut from, 4)?;
                while !from.rest().is_empty() {
                    conversion.tuple(&mut from)?;
                }
            }
            _ => return Ok(None),
        }
        conversion.to.put_slice(from.rest());
        Ok(Some(conversion.to))
    }
}

struct Conversion<F> {
    to: BytesMut,
    utf8: F,
}

impl<F: Fn(&[u8]) -> Option<String>> Conversion<F> {
    fn copy(&mut self, from: &mut Cursor<'_>, count: usize) -> Result<(), ParseError> {
        self.to.put_slice(from.take(count, "the head of a message")?);
        Ok(())
    }

    fn name(&mut self, from: &mut Cursor<'_>) -> Result<(), ParseError> {
        let name = (self.utf8)(from.bytes_to_zero("a name")?);
        self.to.put_slice(name.as_deref().unwrap_or("\u{fffd}").as_bytes());
        self.to.put_u8(0);
        Ok(())
    }

    fn relation(&mut self, from: &mut Cursor<'_>) -> Result<(), ParseError> {
        self.copy(from, 4)?;
        self.name(from)?;
        self.name(from)?;
        self.copy(from, 1)?;
        let count = from.u16("the number of columns")?;
        self.to.put_u16(count);
        for _ in 0..count {
            self.copy(from, 1)?;
            self.name(from)?;
            self.copy(from, 8)?;
        }
        Ok(())
    }

    fn tuple(&mut self, from: &mut Cursor<'_>) -> Result<(), ParseError> {
        self.copy(from, 1)?;
        let count = from.u16("the number of columns")?;
        self.to.put_u16(count);
        for _ in 0..count {
            let kind = from.u8("the kind of a column")?;
            if kind != b't' {
                self.to.put_u8(kind);
                if matches!(kind, b'b' | UNCONVERTIBLE) {
                    let value = from.counted("a column in binary")?;
                    self.value(value);
                }
                continue;
            }
            let text = from.counted("a column as text")?;
            match (self.utf8)(text) {
                Some(text) => {
                    self.to.put_u8(b't');
                    self.value(text.as_bytes());
                }
                None => {
                    self.to.put_u8(UNCONVERTIBLE);
                    self.value(text);
                }
            }
        }
        Ok(())
    }

    fn value(&mut self, value: &[u8]) {
        // A value is below 1 GiB, and at most three times as long in UTF-8.
        self.to.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.to.put_slice(value);
    }
}
