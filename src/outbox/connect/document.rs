//! Reads JSON with the order of its fields, and tells the kinds of numbers apart, as Jackson does.

use indexmap::IndexMap;

/// Levels of nesting that are read; Jackson has the same limit.
const MAX_DEPTH: usize = 1_000;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    /// Fits in 32 bits.
    Int(i32),
    /// Fits in 64 bits.
    Long(i64),
    /// A whole number of more than 64 bits.
    Big,
    Double(f64),
    Text(String),
    Array(Vec<Node>),
    /// Fields in the order in which their names came first.
    Object(IndexMap<String, Node>),
}

/// Reads the first value of a text; the rest of the text does not matter. None if it is not JSON.
pub(super) fn parse(text: &str) -> Option<Node> {
    Parser { rest: text }.value(0)
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Option<Node> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.skip_blanks();
        match self.rest.bytes().next()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.text().map(Node::Text),
            b't' => self.word("true", Node::Bool(true)),
            b'f' => self.word("false", Node::Bool(false)),
            b'n' => self.word("null", Node::Null),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Node> {
        self.take('{')?;
        let mut fields = IndexMap::new();
        self.skip_blanks();
        if self.take('}').is_some() {
            return Some(Node::Object(fields));
        }
        loop {
            self.skip_blanks();
            let name = self.text()?;
            self.skip_blanks();
            self.take(':')?;
            let value = self.value(depth + 1)?;
            // The last value of a name counts, at the place of the first.
            fields.insert(name, value);
            self.skip_blanks();
            if self.take('}').is_some() {
                return Some(Node::Object(fields));
            }
            self.take(',')?;
        }
    }

    fn array(&mut self, depth: usize) -> Option<Node> {
        self.take('[')?;
        let mut items = Vec::new();
        self.skip_blanks();
        if self.take(']').is_some() {
            return Some(Node::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip_blanks();
            if self.take(']').is_some() {
                return Some(Node::Array(items));
            }
            self.take(',')?;
        }
    }

    fn text(&mut self) -> Option<String> {
        let inner = self.rest.strip_prefix('"')?;
        let mut is_escaped = false;
        let end = inner.bytes().position(|byte| {
            let ends = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            ends
        })?;
        // With both quotes.
        let (quoted, rest) = self.rest.split_at_checked(end + 2)?;
        self.rest = rest;
        serde_json::from_str(quoted).ok()
    }

    fn number(&mut self) -> Option<Node> {
        let is_part = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at_checked(end)?;
        // It is a number of JSON: no leading zero, and a digit on each side of the point.
        serde_json::from_str::<&serde_json::value::RawValue>(number).ok()?;
        self.rest = rest;
        if number.contains(['.', 'e', 'E']) {
            return number.parse().ok().map(Node::Double);
        }
        Some(match (number.parse(), number.parse()) {
            (Ok(int), _) => Node::Int(int),
            (_, Ok(long)) => Node::Long(long),
            _ => Node::Big,
        })
    }

    fn word(&mut self, word: &str, node: Node) -> Option<Node> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(node)
    }

    fn take(&mut self, c: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(c)?;
        Some(())
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_keep_their_order_and_numbers_their_kind() {
        let node =
            parse(r#" {"b":1,"a":[2147483648, -1.5e3 ,99999999999999999999,"é\n"],"b":null} x"#);
        let items = [
            Node::Long(2_147_483_648),
            Node::Double(-1500.0),
            Node::Big,
            Node::Text("é\n".to_owned()),
        ];
        let fields = [("b".to_owned(), Node::Null), ("a".to_owned(), Node::Array(items.into()))];
        assert_eq!(node, Some(Node::Object(fields.into())));
    }

    #[test]
    fn what_is_not_json_is_none() {
        for text in ["", "{", "[1,]", "{\"a\"}", "01", "1.", "tru", "\"", "{a:1}", "\"\\x\""] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&"[".repeat(100_000)), None);
    }

    proptest! {
        #[test]
        fn hostile_texts_are_read_or_refused(text: String) {
            let _ = parse(&text);
            let _ = parse(&format!("{{\"a\": {text}"));
        }
    }
}
