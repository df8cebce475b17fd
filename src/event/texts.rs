//! The texts of an event: its id, its event type, and type and id of its aggregate.

use std::{
    ops::Range,
    str::{self, Utf8Error},
};

use bytes::Bytes;
use bytestring::ByteString;

/// The number of texts: id, aggregate type, aggregate id and event type.
pub(super) const TEXTS: usize = 4;

#[derive(Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

/// The texts of an event that decide its topic and headers.
#[derive(Clone, Default)]
pub(super) struct Texts {
    /// The stretch of the event's bytes from its first text to its last, or a copy of the texts.
    /// One slice is cheaper to make, to move and to drop than one for each text.
    bytes: ByteString,
    /// Positions in `bytes`.
    spans: [Span; TEXTS],
}

impl Texts {
    /// Copies the texts: id, aggregate type, aggregate id and event type.
    pub fn copied(texts: [&str; TEXTS]) -> Self {
        let mut end = 0;
        let spans = texts.map(|text| {
            let start = end;
            end += text.len();
            span(start..end)
        });
        Texts { bytes: texts.concat().into(), spans }
    }

    /// Finds the texts at these places of `raw`, and copies them only if it has to.
    ///
    /// # Errors
    /// A text is not UTF-8.
    pub fn of_places(raw: &Bytes, places: [Range<usize>; TEXTS]) -> Result<Self, Utf8Error> {
        let filled = || places.iter().filter(|place| !place.is_empty());
        let begin = filled().map(|place| place.start).min().unwrap_or_default();
        let end = filled().map(|place| place.end).max().unwrap_or_default();
        if let Ok(bytes) = ByteString::try_from(raw.slice(begin..end)) {
            let moved = |place: &Range<usize>| match place.is_empty() {
                true => 0..0,
                false => place.start - begin..place.end - begin,
            };
            let moved = places.each_ref().map(moved);
            if moved.iter().all(|place| bytes.get(place.clone()).is_some()) {
                return Ok(Texts { bytes, spans: moved.map(span) });
            }
        }
        // The bytes between the texts are not UTF-8, or one of the texts is not.
        let mut texts = [""; TEXTS];
        for (text, place) in texts.iter_mut().zip(places) {
            *text = str::from_utf8(raw.get(place).unwrap_or_default())?;
        }
        Ok(Texts::copied(texts))
    }

    pub fn id(&self) -> &str {
        self.text(0)
    }

    pub fn aggregate_type(&self) -> &str {
        self.text(1)
    }

    pub fn aggregate_id(&self) -> &str {
        self.text(2)
    }

    pub fn event_type(&self) -> &str {
        self.text(3)
    }

    fn text(&self, index: usize) -> &str {
        let Span { start, end } = self.spans[index];
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Replaces id and event type.
    pub fn rename(&mut self, id: Option<&str>, event_type: Option<&str>) {
        *self = Texts::copied([
            id.unwrap_or(self.id()),
            self.aggregate_type(),
            self.aggregate_id(),
            event_type.unwrap_or(self.event_type()),
        ]);
    }

    /// Shares one of the texts.
    pub fn share(&self, text: &str) -> ByteString {
        self.bytes.slice_ref(text)
    }
}

/// A message of PostgreSQL is at most 1 GiB.
fn span(place: Range<usize>) -> Span {
    let short = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Span { start: short(place.start), end: short(place.end) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_a_character_are_no_texts() {
        let raw = Bytes::from_static(b"\xc3\xa9");
        assert!(Texts::of_places(&raw, [0..1, 1..2, 0..0, 0..0]).is_err());
    }

    #[test]
    fn a_renamed_event_keeps_its_other_texts() {
        let raw = Bytes::from_static(b"ia1e");
        let mut texts = Texts::of_places(&raw, [0..1, 1..2, 2..3, 3..4]).expect("UTF-8");
        assert_eq!(texts.aggregate_id().as_ptr(), raw[2..].as_ptr());
        texts.rename(Some("longer"), None);
        let all = [texts.id(), texts.aggregate_type(), texts.aggregate_id(), texts.event_type()];
        assert_eq!(all, ["longer", "a", "1", "e"]);
        assert_eq!(texts.share(texts.aggregate_type()), "a");
    }
}
