//! Converts texts from the encoding of the database to UTF-8.
//!
//! A server that converts texts ends the stream at the first one that it can't convert. Therefore,
//! if the database is not in UTF-8, the server is asked not to convert, and texts are converted
//! here, where a text that can't be converted affects only its row. The character table is read from
//! the server once, so the result is the same as the server's.
//!
//! | database | texts |
//! | --- | --- |
//! | `UTF8` | not converted |
//! | `SQL_ASCII`, which has no characters | not converted, and may be any bytes |
//! | encodings of one byte (`LATIN1`, `WIN1252`, `KOI8R`, …), `EUC_*` | converted here |
//! | `MULE_INTERNAL` | converted by the server |

use std::{collections::HashMap, fmt::Write, sync::Arc};

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::{Error, ErrorKind, Notice, Observer, Result, error::postgres_error};

/// A set of characters beyond ASCII: a prefix, the number of further bytes, and their range.
type Characters = (&'static str, u8, [u8; 2]);

const ONE_BYTE: &[Characters] = &[("", 1, [0x80, 0xff])];
const TWO_BYTES: Characters = ("", 2, [0xa1, 0xfe]);
const EUC_JP: &[Characters] = &[("8e", 1, [0xa1, 0xdf]), TWO_BYTES, ("8f", 2, [0xa1, 0xfe])];
const EUC_TW: &[Characters] = &[
    TWO_BYTES,
    ("8ea1", 2, [0xa1, 0xfe]),
    ("8ea2", 2, [0xa1, 0xfe]),
    ("8ea3", 2, [0xa1, 0xfe]),
    ("8ea4", 2, [0xa1, 0xfe]),
    ("8ea5", 2, [0xa1, 0xfe]),
    ("8ea6", 2, [0xa1, 0xfe]),
    ("8ea7", 2, [0xa1, 0xfe]),
];

/// Conversion of a database's texts to UTF-8.
#[derive(Clone, Debug)]
pub enum Encoding {
    /// No conversion: texts are UTF-8, or any bytes for `SQL_ASCII`.
    AsIs,
    /// Conversion here, by this table.
    Table(Arc<CharacterTable>),
    /// Conversion by the server.
    Converted,
}

/// The characters of an encoding beyond ASCII, with their UTF-8.
#[derive(Debug)]
pub struct CharacterTable {
    characters: HashMap<Vec<u8>, String>,
    /// Length of the longest character in bytes.
    longest: usize,
}

impl Encoding {
    /// Reads the encoding of the database and its characters from the server.
    ///
    /// # Errors
    /// A lost connection. If the server can't tell its characters, it has to convert texts itself,
    /// and the observer gets a notice.
    pub async fn read(client: &Client, observer: &dyn Observer) -> Result<Self> {
        let query = "SELECT pg_catalog.getdatabaseencoding()";
        let name = ask(client, query).await?;
        let characters: &[Characters] = match name.as_str() {
            "UTF8" | "SQL_ASCII" => return Ok(Encoding::AsIs),
            "MULE_INTERNAL" => return Ok(Encoding::Converted),
            "EUC_JP" | "EUC_JIS_2004" => EUC_JP,
            "EUC_CN" | "EUC_KR" => &[TWO_BYTES],
            "EUC_TW" => EUC_TW,
            _ => ONE_BYTE,
        };
        match ask(client, &table_query(characters)).await {
            Ok(table) => Ok(Encoding::Table(Arc::new(CharacterTable::parse(&table)?))),
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                observer.notice(&Notice::ConvertedByServer { encoding: &name, error: &error });
                Ok(Encoding::Converted)
            }
        }
    }

    /// The `client_encoding` to set, in which the server then sends texts.
    pub fn client_encoding(&self) -> &'static str {
        match self {
            // The server then converts nothing.
            Encoding::AsIs | Encoding::Table(_) => "SQL_ASCII",
            Encoding::Converted => "UTF8",
        }
    }

    /// Encodes a text that is sent to the server; `?` replaces characters that the encoding lacks.
    pub fn encode(&self, text: &str) -> Vec<u8> {
        match self.table() {
            Some(table) if !text.is_ascii() => table.encode(text),
            _ => text.into(),
        }
    }

    /// The character table, if texts are converted here.
    pub fn table(&self) -> Option<&CharacterTable> {
        match self {
            Encoding::Table(table) => Some(table),
            Encoding::AsIs | Encoding::Converted => None,
        }
    }
}

impl CharacterTable {
    /// Parses lines of hex digits: a character, a blank, its UTF-8.
    fn parse(lines: &str) -> Result<Self> {
        let bad = || Error::new(ErrorKind::Protocol, "cannot read the table of an encoding");
        let bytes = |hex: &str| -> Option<Vec<u8>> {
            let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
            let pair = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            if rest.is_empty() { pairs.iter().map(|two| pair(two)).collect() } else { None }
        };
        let mut characters = HashMap::new();
        for line in lines.lines() {
            let (from, to) = line.split_once(' ').ok_or_else(bad)?;
            let (from, to) = (bytes(from).ok_or_else(bad)?, bytes(to).ok_or_else(bad)?);
            characters.insert(from, String::from_utf8(to).map_err(|_| bad())?);
        }
        let longest = characters.keys().map(Vec::len).max().unwrap_or_default();
        Ok(CharacterTable { characters, longest })
    }

    fn encode(&self, text: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(text.len());
        for character in text.chars() {
            let mut known = self.characters.iter();
            match known.find(|(_, utf8)| utf8.chars().eq([character])) {
                _ if character.is_ascii() => bytes.push(character as u8),
                Some((encoded, _)) => bytes.extend_from_slice(encoded),
                None => bytes.push(b'?'),
            }
        }
        bytes
    }

    /// Converts a text to UTF-8; none if it has bytes that are not a character.
    pub fn utf8(&self, mut text: &[u8]) -> Option<String> {
        let mut utf8 = String::with_capacity(text.len());
        while let Some(first) = text.first() {
            if first.is_ascii() {
                utf8.push(char::from(*first));
                text = text.get(1..).unwrap_or_default();
                continue;
            }
            let (length, character) = (1..=self.longest)
                .find_map(|length| Some((length, self.characters.get(text.get(..length)?)?)))?;
            utf8.push_str(character);
            text = text.get(length..).unwrap_or_default();
        }
        Some(utf8)
    }
}

/// Returns statements of which the last one returns the table. The server has no list of an
/// encoding's characters, so all byte sequences are tried.
fn table_query(characters: &[Characters]) -> String {
    let mut loops = String::new();
    for (prefix, count, [low, high]) in characters {
        let (second, digits) = if *count == 2 { ([*low, *high], 2) } else { ([0, 0], 0) };
        let [second_low, second_high] = second;
        let _ = write!(
            loops,
            "FOR a IN {low}..{high} LOOP
                found := '';
                FOR b IN {second_low}..{second_high} LOOP
                    code := '{prefix}' || lpad(to_hex(a), 2, '0')
                        || substr(lpad(to_hex(b), 2, '0'), 1, {digits});
                    BEGIN
                        found := found || code || ' ' || encode(convert(decode(code, 'hex'),
                            getdatabaseencoding(), 'UTF8'), 'hex') || E'\\n';
                    EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
                    END;
                END LOOP;
                PERFORM set_config('factlib.characters',
                    current_setting('factlib.characters') || found, true);
            END LOOP;\n"
        );
    }
    format!(
        "SELECT set_config('search_path', 'pg_catalog', true), set_config('factlib.characters', '', true);
        DO LANGUAGE plpgsql $$
        DECLARE found text; code text;
        BEGIN {loops} END $$;
        SELECT current_setting('factlib.characters')"
    )
}

/// Runs statements in one transaction and returns the value of the last one.
async fn ask(client: &Client, query: &str) -> Result<String> {
    let message = "cannot ask PostgreSQL for the database's encoding";
    let answer =
        client.simple_query(query).await.map_err(|error| postgres_error(message, error))?;
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    rows.last().map(str::to_owned).ok_or_else(|| Error::new(ErrorKind::Protocol, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_converted_by_the_table_or_not_at_all() {
        let table =
            CharacterTable::parse("a4a2 e38182\n8fb0a1 e4b882\n8eb1 efbdb1\n").expect("hex");
        assert_eq!(table.utf8(b"").as_deref(), Some(""));
        assert_eq!(table.utf8(b"a\xa4\xa2b\x8f\xb0\xa1\x8e\xb1").as_deref(), Some("aあb丂ｱ"));
        for none in [&b"\xa4"[..], b"\xa4\xa2\xff", b"\xa2\xa4"] {
            assert_eq!(table.utf8(none), None);
        }
        assert_eq!(table.encode("aあbé"), b"a\xa4\xa2b?");
        assert_eq!(CharacterTable::parse("").expect("empty").utf8(b"\xe9"), None);
        for line in ["e9", "e9 c3", "e c3a9", "zz c3a9"] {
            CharacterTable::parse(line).expect_err(line);
        }
    }
}
