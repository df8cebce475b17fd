//! Parses the history of a timeline, as `TIMELINE_HISTORY` returns it, and tells whether it contains
//! a position.
//!
//! A promotion or a restore begins a new timeline. Its history file lists the timelines before it,
//! oldest first, each with the position at which it was left:
//! `parent timeline, tab, switch position, tab, reason` (`readTimeLineHistory` in
//! PostgreSQL's timeline.c). WAL that was written on a timeline after that position is lost.

use crate::{Lsn, ParseLsnError};

/// A timeline and its ancestors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    timeline: u32,
    /// Ancestors in ascending order, each with the position at which it was left.
    ancestors: Vec<(u32, Lsn)>,
}

/// Relation of a position on some timeline to a [`TimelineHistory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimelinePosition {
    /// The history contains the position.
    Inside,
    /// The position is on one of its timelines, but after this position, at which it was left.
    Beyond(Lsn),
    /// The position is on a timeline that is not an ancestor.
    Elsewhere,
}

/// Error for a text that is not a timeline history.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the timeline history: {mistake}")]
pub struct MalformedHistory {
    line: usize,
    mistake: Mistake,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Mistake {
    #[error("{0:?} is no timeline")]
    Timeline(String),
    #[error("no position at which timeline {0} was left")]
    NoPosition(u32),
    #[error(transparent)]
    Position(#[from] ParseLsnError),
    #[error("timeline {0} is out of order")]
    Order(u32),
}

impl TimelineHistory {
    /// The first timeline of a cluster; it has no ancestors.
    pub const FIRST: u32 = 1;

    /// Parses the history file of `timeline`.
    pub fn parse(timeline: u32, text: &str) -> Result<Self, MalformedHistory> {
        let mut ancestors: Vec<(u32, Lsn)> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = entry(line).and_then(|(parent, end)| {
                let last = ancestors.last().map_or(0, |(timeline, _)| *timeline);
                let in_order = last < parent && parent < timeline;
                in_order.then_some((parent, end)).ok_or(Mistake::Order(parent))
            });
            ancestors.push(entry.map_err(|mistake| MalformedHistory { line: index + 1, mistake })?);
        }
        Ok(TimelineHistory { timeline, ancestors })
    }

    /// Position at which this timeline began; none for the first one.
    pub fn beginning(&self) -> Option<Lsn> {
        self.ancestors.last().map(|(_, end)| *end)
    }

    /// Tells whether the history contains `lsn` of `timeline`.
    pub fn locate(&self, timeline: u32, lsn: Lsn) -> TimelinePosition {
        if timeline == self.timeline {
            return TimelinePosition::Inside;
        }
        match self.ancestors.iter().find(|(ancestor, _)| *ancestor == timeline) {
            None => TimelinePosition::Elsewhere,
            Some((_, end)) if lsn > *end => TimelinePosition::Beyond(*end),
            Some(_) => TimelinePosition::Inside,
        }
    }
}

fn entry(line: &str) -> Result<(u32, Lsn), Mistake> {
    let mut words = line.split_ascii_whitespace();
    let timeline = words.next().unwrap_or_default();
    let timeline = timeline.parse().map_err(|_| Mistake::Timeline(timeline.to_owned()))?;
    let end = words.next().ok_or(Mistake::NoPosition(timeline))?.parse()?;
    Ok((timeline, end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "# made by hand\n\n1\t0/3000000\tno recovery target specified\n\
                        \n3\t16/B374D848\tbefore 2026-01-01 00:00:00+00\r\n";

    fn lsn(text: &str) -> Lsn {
        text.parse().expect("a position")
    }

    #[test]
    fn a_position_is_inside_up_to_where_its_timeline_was_left() {
        let history = TimelineHistory::parse(4, TEXT).expect("well formed");
        for (timeline, position, place) in [
            (4, "FF/0", TimelinePosition::Inside),
            (1, "0/2FFFFFF", TimelinePosition::Inside),
            (1, "0/3000000", TimelinePosition::Inside),
            (1, "0/3000001", TimelinePosition::Beyond(lsn("0/3000000"))),
            (3, "16/B374D848", TimelinePosition::Inside),
            (3, "17/0", TimelinePosition::Beyond(lsn("16/B374D848"))),
            (2, "0/1", TimelinePosition::Elsewhere),
            (5, "0/1", TimelinePosition::Elsewhere),
        ] {
            assert_eq!(history.locate(timeline, lsn(position)), place, "{timeline} {position}");
        }
    }

    #[test]
    fn the_first_timeline_comes_from_none() {
        let history = TimelineHistory::parse(TimelineHistory::FIRST, "").expect("well formed");
        assert_eq!(history.locate(1, Lsn::new(7)), TimelinePosition::Inside);
        assert_eq!(history.locate(2, Lsn::new(7)), TimelinePosition::Elsewhere);
        assert_eq!(history.beginning(), None);
        let history = TimelineHistory::parse(4, TEXT).expect("well formed");
        assert_eq!(history.beginning(), Some(lsn("16/B374D848")));
    }

    #[test]
    fn what_is_malformed_is_named_with_its_line() {
        for (text, mistake) in [
            ("one\t0/1", "line 1 of the timeline history: \"one\" is no timeline"),
            ("\n-1\t0/1", "line 2 of the timeline history: \"-1\" is no timeline"),
            ("4294967296\t0/1", "line 1 of the timeline history: \"4294967296\" is no timeline"),
            ("1", "line 1 of the timeline history: no position at which timeline 1 was left"),
            ("1\t0/1\n1\t0/2", "line 2 of the timeline history: timeline 1 is out of order"),
            ("4\t0/1", "line 1 of the timeline history: timeline 4 is out of order"),
            ("0\t0/1", "line 1 of the timeline history: timeline 0 is out of order"),
        ] {
            let error = TimelineHistory::parse(4, text).expect_err(text).to_string();
            assert_eq!(error, mistake);
        }
        let error = TimelineHistory::parse(4, "1\t0:1").expect_err("no position").to_string();
        assert!(error.contains("not a WAL position"), "{error}");
    }

    proptest! {
        #[test]
        fn hostile_text_is_refused_or_read(text in "[0-9a-fA-F/#\t\n \u{0}é-]{0,80}|.{0,80}") {
            let _ = TimelineHistory::parse(u32::MAX, &text);
        }
    }
}
