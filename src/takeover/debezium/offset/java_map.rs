//! Parses a serialised Java `HashMap<byte[], byte[]>`, the file in which Kafka Connect and Debezium
//! Server keep offsets (`FileOffsetBackingStore`). Pure; hostile bytes give an error.
//!
//! The format is in the "Java Object Serialization Specification", chapter 6. Only the shapes that
//! `HashMap.writeObject` writes are known here.

use std::collections::HashMap;

const STREAM_MAGIC: u16 = 0xACED;
const STREAM_VERSION: u16 = 5;
const TC_NULL: u8 = 0x70;
const TC_REFERENCE: u8 = 0x71;
const TC_CLASSDESC: u8 = 0x72;
const TC_OBJECT: u8 = 0x73;
const TC_ARRAY: u8 = 0x75;
const TC_BLOCKDATA: u8 = 0x77;
const TC_ENDBLOCKDATA: u8 = 0x78;
/// The handle of the first class, object or array of a stream.
const FIRST_HANDLE: u32 = 0x7E_0000;

const MAP_CLASS: &str = "java.util.HashMap";
const BYTES_CLASS: &str = "[B";

/// An entry: a key, and its value unless that is null.
pub(super) type Entry = (Vec<u8>, Option<Vec<u8>>);

/// Parses the map; the error says what is wrong, and at which byte.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let mut stream = Stream { bytes, at: 0, handles: HashMap::new(), next_handle: FIRST_HANDLE };
    stream.map().map_err(|what| format!("{what} at byte {}", stream.at))
}

/// An object that a later reference may name.
#[derive(Clone)]
enum Object {
    Class(String),
    Bytes(Vec<u8>),
    Map,
}

struct Stream<'a> {
    bytes: &'a [u8],
    at: usize,
    handles: HashMap<u32, Object>,
    next_handle: u32,
}

impl Stream<'_> {
    fn map(&mut self) -> Result<Vec<Entry>, &'static str> {
        if (self.u16()?, self.u16()?) != (STREAM_MAGIC, STREAM_VERSION) {
            return Err("this is no serialised Java object: its first bytes are others");
        }
        if self.u8()? != TC_OBJECT {
            return Err("there is no object");
        }
        let fields = self.class(MAP_CLASS)?;
        self.remember(Object::Map);
        // Its load factor and its threshold.
        self.take(fields)?;
        if (self.u8()?, self.u8()?) != (TC_BLOCKDATA, 8) {
            return Err("the size of the map is missing");
        }
        let (_capacity, size) = (self.u32()?, self.u32()?);
        let mut entries = Vec::new();
        for _ in 0..size {
            let key = self.array()?.ok_or("a key is null")?;
            entries.push((key, self.array()?));
        }
        match self.u8()? {
            TC_ENDBLOCKDATA => Ok(entries),
            _ => Err("the map goes on behind its last entry"),
        }
    }

    /// Reads a class, which has to be this one, and returns the bytes of its fields' values.
    fn class(&mut self, wanted: &str) -> Result<usize, &'static str> {
        const OTHER: &str = "the object is no HashMap of byte arrays";
        match self.u8()? {
            TC_CLASSDESC => {}
            TC_REFERENCE => {
                return match self.reference()? {
                    Object::Class(name) if name == wanted => Ok(0),
                    _ => Err(OTHER),
                };
            }
            _ => return Err(OTHER),
        }
        let name = self.text()?;
        let _serial_version = self.take(8)?;
        self.remember(Object::Class(name.clone()));
        let _flags = self.u8()?;
        let mut bytes = 0;
        for _ in 0..self.u16()? {
            bytes += match self.u8()? {
                b'B' | b'Z' => 1,
                b'C' | b'S' => 2,
                b'F' | b'I' => 4,
                b'D' | b'J' => 8,
                _ => return Err(OTHER),
            };
            self.text()?;
        }
        // No annotation, and no class that it extends.
        if name != wanted || (self.u8()?, self.u8()?) != (TC_ENDBLOCKDATA, TC_NULL) {
            return Err(OTHER);
        }
        Ok(bytes)
    }

    /// Reads an array of bytes; none if it is null.
    fn array(&mut self) -> Result<Option<Vec<u8>>, &'static str> {
        match self.u8()? {
            TC_NULL => Ok(None),
            TC_REFERENCE => match self.reference()? {
                Object::Bytes(bytes) => Ok(Some(bytes)),
                _ => Err("a key or value is no array of bytes"),
            },
            TC_ARRAY => {
                self.class(BYTES_CLASS)?;
                let length = self.u32()? as usize;
                let bytes = self.take(length)?.to_vec();
                self.remember(Object::Bytes(bytes.clone()));
                Ok(Some(bytes))
            }
            _ => Err("a key or value is no array of bytes"),
        }
    }

    fn remember(&mut self, object: Object) {
        self.handles.insert(self.next_handle, object);
        self.next_handle = self.next_handle.wrapping_add(1);
    }

    fn reference(&mut self) -> Result<Object, &'static str> {
        let handle = self.u32()?;
        self.handles.get(&handle).cloned().ok_or("a reference to nothing")
    }

    fn text(&mut self) -> Result<String, &'static str> {
        let length = self.u16()? as usize;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn u8(&mut self) -> Result<u8, &'static str> {
        Ok(u8::from_be_bytes(self.fixed()?))
    }

    fn u16(&mut self) -> Result<u16, &'static str> {
        Ok(u16::from_be_bytes(self.fixed()?))
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        Ok(u32::from_be_bytes(self.fixed()?))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| "it ends early")
    }

    fn take(&mut self, length: usize) -> Result<&[u8], &'static str> {
        let end = self.at.checked_add(length).ok_or("it ends early")?;
        let taken = self.bytes.get(self.at..end).ok_or("it ends early")?;
        self.at = end;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by Java: `new HashMap<byte[], byte[]>()` with the entries `a` → `bc`, and `d` → null.
    fn written() -> Vec<u8> {
        let mut bytes = vec![0xAC, 0xED, 0, 5, TC_OBJECT, TC_CLASSDESC, 0, 17];
        bytes.extend(MAP_CLASS.as_bytes());
        bytes.extend([0x05, 0x07, 0xDA, 0xC1, 0xC3, 0x16, 0x60, 0xD1, 3, 0, 2]);
        bytes.extend(b"F\x00\x0AloadFactorI\x00\x09thresholdxp");
        bytes.extend([0x3F, 0x40, 0, 0, 0, 0, 0, 12, TC_BLOCKDATA, 8, 0, 0, 0, 16, 0, 0, 0, 2]);
        bytes.extend([TC_ARRAY, TC_CLASSDESC, 0, 2, b'[', b'B']);
        bytes.extend([0xAC, 0xF3, 0x17, 0xF8, 0x06, 0x08, 0x54, 0xE0, 2, 0, 0, b'x', b'p']);
        bytes.extend([0, 0, 0, 1, b'a']);
        bytes.extend([TC_ARRAY, TC_REFERENCE, 0, 0x7E, 0, 2, 0, 0, 0, 2, b'b', b'c']);
        bytes.extend([TC_ARRAY, TC_REFERENCE, 0, 0x7E, 0, 2, 0, 0, 0, 1, b'd', TC_NULL]);
        bytes.push(TC_ENDBLOCKDATA);
        bytes
    }

    #[test]
    fn a_map_of_byte_arrays_is_read() {
        let entries = parse(&written()).expect("a map");
        assert_eq!(entries, [(b"a".to_vec(), Some(b"bc".to_vec())), (b"d".to_vec(), None)]);
    }

    #[test]
    fn what_is_cut_or_something_else_is_an_error() {
        let whole = written();
        for length in 0..whole.len() {
            parse(&whole[..length]).expect_err("cut");
        }
        let error = parse(b"{\"key\": 1}").expect_err("no Java");
        let first = "this is no serialised Java object: its first bytes are others at byte 4";
        assert_eq!(error, first);
        for (at, byte, said) in [
            (4, TC_ARRAY, "there is no object at byte 5"),
            (5, TC_NULL, "the object is no HashMap of byte arrays at byte 6"),
            (71, TC_NULL, "the size of the map is missing at byte 73"),
            (81, TC_NULL, "a key is null at byte 82"),
            (81, TC_OBJECT, "a key or value is no array of bytes at byte 82"),
            (103, 255, "it ends early at byte 104"),
            (110, 9, "a reference to nothing at byte 111"),
            (whole.len() - 1, TC_NULL, "the map goes on behind its last entry at byte "),
        ] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            let error = parse(&bytes).expect_err(said);
            assert!(error.starts_with(said), "{said}: {error}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_give_an_answer(at in 0_usize..200, byte: u8, more: Vec<u8>) {
            let mut bytes = written();
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
            bytes.extend(&more);
            let _ = parse(&bytes);
            let _ = parse(&more);
        }
    }
}
