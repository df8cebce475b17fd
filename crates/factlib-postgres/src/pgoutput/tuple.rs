//! Rows, columns and relation lists of pgoutput messages: validated once when parsed, then split
//! into borrowed values by iterators.

use super::{ParseError, cursor::Cursor};

/// The kind of a column whose text could not be converted to UTF-8; not of PostgreSQL's protocol.
pub(super) const UNCONVERTIBLE: u8 = b'x';

/// The columns of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    count: u16,
    columns: &'a [u8],
}

/// One column of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// An unchanged TOASTed value, which the server does not send.
    UnchangedToast,
    /// A value in its type's text format.
    Text(&'a [u8]),
    /// A value in its type's binary format; only if [`binary`] was asked for.
    ///
    /// [`binary`]: crate::ReplicationOptions::binary
    Binary(&'a [u8]),
    /// A text with bytes that are no characters of the database's encoding, unchanged; the server
    /// sends none, see [`Message::converted`](super::Message::converted).
    Unconvertible(&'a [u8]),
}

impl<'a> Tuple<'a> {
    pub(super) fn parse(cursor: &mut Cursor<'a>) -> Result<Self, ParseError> {
        let count = cursor.u16("the number of columns")?;
        let start = *cursor;
        for _ in 0..count {
            value(cursor)?;
        }
        Ok(Tuple { count, columns: cursor.since(start) })
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.count.into()
    }

    /// True if there are no columns.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The columns in the relation's order.
    pub fn values(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut cursor = Cursor::new(self.columns);
        (0..self.count).map_while(move |_| value(&mut cursor).ok())
    }
}

fn value<'a>(cursor: &mut Cursor<'a>) -> Result<Value<'a>, ParseError> {
    let before = *cursor;
    match cursor.u8("the kind of a column")? {
        b'n' => Ok(Value::Null),
        b'u' => Ok(Value::UnchangedToast),
        b't' => cursor.counted("a column as text").map(Value::Text),
        b'b' => cursor.counted("a column in binary").map(Value::Binary),
        UNCONVERTIBLE => cursor.counted("a column as bytes").map(Value::Unconvertible),
        _ => Err(before.error("the kind of a column: n, u, t or b")),
    }
}

/// The columns of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns<'a> {
    count: u16,
    columns: &'a [u8],
}

/// One column of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    /// 1 for a part of the replica identity, else 0.
    pub flags: u8,
    /// Name of the column.
    pub name: &'a str,
    /// OID of the column's type.
    pub type_oid: u32,
    /// Modifier of the column's type (`atttypmod`).
    pub type_modifier: i32,
}

impl<'a> Columns<'a> {
    pub(super) fn parse(cursor: &mut Cursor<'a>) -> Result<Self, ParseError> {
        let count = cursor.u16("the number of columns")?;
        let start = *cursor;
        for _ in 0..count {
            column(cursor)?;
        }
        Ok(Columns { count, columns: cursor.since(start) })
    }

    /// The columns in order.
    pub fn iter(&self) -> impl Iterator<Item = Column<'a>> + use<'a> {
        let mut cursor = Cursor::new(self.columns);
        (0..self.count).map_while(move |_| column(&mut cursor).ok())
    }
}

fn column<'a>(cursor: &mut Cursor<'a>) -> Result<Column<'a>, ParseError> {
    Ok(Column {
        flags: cursor.u8("the flags of a column")?,
        name: cursor.text("the name of a column")?,
        type_oid: cursor.u32("the type of a column")?,
        type_modifier: cursor.u32("the type modifier of a column")?.cast_signed(),
    })
}

/// The OIDs of relations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relations<'a>(&'a [u8]);

impl<'a> Relations<'a> {
    pub(super) fn parse(count: u32, cursor: &mut Cursor<'a>) -> Result<Self, ParseError> {
        let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(4));
        cursor.take(bytes.unwrap_or(usize::MAX), "the relations").map(Relations)
    }

    /// The OIDs in order.
    pub fn oids(&self) -> impl Iterator<Item = u32> + use<'a> {
        let (oids, _) = self.0.as_chunks();
        oids.iter().map(|oid| u32::from_be_bytes(*oid))
    }
}
