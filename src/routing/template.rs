//! Templates: texts with placeholders for an event's fields, such as `{prefix}.{aggregate_type}`.

use super::pattern::{Captures, Pattern};
use crate::{Event, proto::OutboxEvent};

/// A text with placeholders.
#[derive(Clone, Debug)]
pub(super) struct Template {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Text(String),
    Prefix,
    AggregateType,
    AggregateId,
    EventType,
    Id,
    Metadata(String),
    Capture(String),
}

/// Placeholder names that the groups of a regular expression may not use.
pub(super) const FIELDS: [&str; 5] =
    ["prefix", "aggregate_type", "aggregate_id", "event_type", "id"];

/// Values for the placeholders.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    pub event: &'a Event,
    /// The prefix of the event's default topic.
    pub prefix: &'a str,
    /// The decoded event, present if a template uses metadata.
    pub envelope: Option<&'a OutboxEvent>,
    pub captures: &'a Captures,
}

impl Template {
    /// Parses a template. `{{` and `}}` are literal braces; `captures` are the names of the route's
    /// groups.
    ///
    /// # Errors
    /// The reason why the template is invalid.
    pub fn parse(text: &str, captures: &[&str]) -> Result<Self, String> {
        let (mut segments, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            literal += rest.get(..at).unwrap_or_default();
            rest = rest.get(at..).unwrap_or_default();
            if let Some((brace, after)) = [("{{", '{'), ("}}", '}')]
                .into_iter()
                .find_map(|(twice, brace)| Some((brace, rest.strip_prefix(twice)?)))
            {
                literal.push(brace);
                rest = after;
                continue;
            }
            let hole = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let Some((name, after)) = hole else {
                return Err("has an unmatched brace; write {{ and }} for literal braces".into());
            };
            if !literal.is_empty() {
                segments.push(Segment::Text(std::mem::take(&mut literal)));
            }
            segments.push(Segment::parse(name, captures)?);
            rest = after;
        }
        literal += rest;
        if !literal.is_empty() {
            segments.push(Segment::Text(literal));
        }
        Ok(Template { text: text.to_owned(), segments })
    }

    /// The template as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Fills in the values of an event.
    ///
    /// # Errors
    /// The key of metadata that the event lacks.
    pub fn render<'a>(&'a self, values: Values<'a>) -> Result<String, &'a str> {
        let mut text = String::with_capacity(64);
        for segment in &self.segments {
            text += match segment {
                Segment::Text(text) => text,
                Segment::Prefix => values.prefix,
                Segment::AggregateType => values.event.aggregate_type(),
                Segment::AggregateId => values.event.aggregate_id(),
                Segment::EventType => values.event.event_type(),
                Segment::Id => values.event.id(),
                Segment::Capture(name) => values.captures.get(name).unwrap_or_default(),
                Segment::Metadata(key) => {
                    let metadata = values.envelope.map(|envelope| &envelope.metadata);
                    metadata.and_then(|metadata| metadata.get(key)).ok_or(key.as_str())?
                }
            };
        }
        Ok(text)
    }

    /// The text, if it is the same for every event: only the prefix is known beforehand.
    pub fn constant(&self, prefix: &str) -> Option<String> {
        self.segments.iter().map(|segment| segment.fixed_text(prefix)).collect()
    }

    /// Segments that are the same for every event.
    pub fn fixed_text<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.segments.iter().filter_map(move |segment| segment.fixed_text(prefix))
    }

    /// True if the template may give this topic name for some event.
    pub fn can_render(&self, topic: &str, prefix: &str) -> bool {
        // Topic names have no characters that are special in a glob.
        let glob: String =
            self.segments.iter().map(|segment| segment.fixed_text(prefix).unwrap_or("*")).collect();
        let glob = Pattern::parse(&glob);
        glob.is_ok_and(|glob| glob.matches(topic, &mut Captures::default()))
    }

    /// True if it uses the event's metadata.
    pub fn needs_metadata(&self) -> bool {
        self.segments.iter().any(|segment| matches!(segment, Segment::Metadata(_)))
    }

    /// True if events of the same types may get different texts, apart from captures.
    pub fn differs_within_a_type(&self) -> bool {
        let differs = |segment: &Segment| matches!(segment, Segment::AggregateId | Segment::Id);
        self.needs_metadata() || self.segments.iter().any(differs)
    }

    /// True if it uses the event type.
    pub fn has_event_type(&self) -> bool {
        self.segments.contains(&Segment::EventType)
    }
}

impl Segment {
    fn parse(name: &str, captures: &[&str]) -> Result<Self, String> {
        Ok(match name {
            "prefix" => Segment::Prefix,
            "aggregate_type" => Segment::AggregateType,
            "aggregate_id" => Segment::AggregateId,
            "event_type" => Segment::EventType,
            "id" => Segment::Id,
            _ => match name.strip_prefix("metadata.") {
                Some(key) if !key.is_empty() => Segment::Metadata(key.to_owned()),
                _ if captures.contains(&name) => Segment::Capture(name.to_owned()),
                _ => {
                    let groups = captures.iter().map(|name| format!(", {{{name}}}"));
                    return Err(format!(
                        "has {{{name}}}; there are {{prefix}}, {{aggregate_type}}, {{aggregate_id}}, \
                         {{event_type}}, {{id}}, {{metadata.KEY}}{}",
                        groups.collect::<String>()
                    ));
                }
            },
        })
    }

    fn fixed_text<'a>(&'a self, prefix: &'a str) -> Option<&'a str> {
        match self {
            Segment::Text(text) => Some(text),
            Segment::Prefix => Some(prefix),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::Lsn;

    fn render(text: &str) -> Result<String, String> {
        let envelope = OutboxEvent {
            id: "i".into(),
            aggregate_type: "order".into(),
            aggregate_id: "7".into(),
            event_type: "order.placed".into(),
            metadata: [("tenant".into(), "acme".into())].into(),
            ..Default::default()
        };
        let event = Event::parse(envelope.encode_to_vec().into(), Lsn::ZERO).expect("an event");
        let pattern = super::super::pattern::Pattern::parse(r"/\.(?<what>.*)/").expect("a pattern");
        let mut captures = Captures::default();
        assert!(pattern.matches("order.placed", &mut captures));
        let template = Template::parse(text, &["what"])?;
        let envelope = Some(&envelope);
        let values = Values { event: &event, prefix: "shop", envelope, captures: &captures };
        template.render(values).map_err(|key| format!("no {key}"))
    }

    #[test]
    fn holes_are_filled() {
        for (text, rendered) in [
            ("", ""),
            ("plain", "plain"),
            ("{prefix}.{aggregate_type}", "shop.order"),
            ("{aggregate_id}/{id}:{event_type}", "7/i:order.placed"),
            ("{metadata.tenant}-{what}", "acme-placed"),
            ("{{{id}}}", "{i}"),
            ("é{id}é", "éié"),
        ] {
            assert_eq!(render(text).as_deref(), Ok(rendered), "{text}");
        }
        assert_eq!(render("{metadata.user}"), Err("no user".into()));
    }

    #[test]
    fn a_name_that_it_may_be_has_what_is_known_of_it() {
        let may = |template: &str, text: &str| {
            Template::parse(template, &[]).expect("a template").can_render(text, "shop")
        };
        assert!(may("audit", "audit") && !may("audit", "audits"));
        assert!(may("{prefix}.{aggregate_type}", "shop.order"));
        assert!(!may("{prefix}.{id}", "other.a"));
        assert!(may("cdc.{aggregate_type}.v1", "cdc.a.v1.v1") && may("{id}.log", "a.log"));
        assert!(!may("cdc.{aggregate_type}.v1", "cdc.a.v2"));
    }

    #[test]
    fn what_is_none_says_why() {
        for text in ["{", "}", "{id", "id}", "{a{id}"] {
            let problem = render(text).expect_err(text);
            assert!(problem.contains("brace") || problem.contains("there are"), "{problem}");
        }
        for text in ["{}", "{tenant}", "{metadata.}", "{ID}"] {
            let problem = render(text).expect_err(text);
            assert!(problem.contains("there are {prefix}"), "{problem}");
            assert!(problem.ends_with("{metadata.KEY}, {what}"), "{problem}");
        }
    }
}
