//! A condition on a text: an exact text, a glob or a regular expression with named groups.

use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;

/// A condition that a text matches or not.
#[derive(Debug)]
pub(crate) struct Pattern {
    text: String,
    matcher: Matcher,
}

#[derive(Debug)]
enum Matcher {
    Exact,
    Glob(GlobMatcher),
    Regex(Regex),
}

impl Pattern {
    /// Parses a pattern. `/…/` and `regex:…` are regular expressions, a text with one of `*?[{\` is
    /// a glob, and any other text has to be equal.
    ///
    /// # Errors
    /// The reason why the pattern is invalid.
    pub fn parse(text: &str) -> Result<Self, String> {
        let slashed = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        let matcher = if let Some(regex) = text.strip_prefix("regex:").or(slashed) {
            let regex = Regex::new(regex).map_err(|error| {
                // The first lines point at the position; the last one gives the reason.
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default().trim();
                format!("is not a valid regular expression: {}", last.trim_start_matches("error: "))
            })?;
            Matcher::Regex(regex)
        } else if text.contains(['*', '?', '[', '{', '\\']) {
            let glob = GlobBuilder::new(text).build();
            let glob = glob.map_err(|error| format!("is not a valid glob: {}", error.kind()))?;
            Matcher::Glob(glob.compile_matcher())
        } else {
            Matcher::Exact
        };
        Ok(Pattern { text: text.to_owned(), matcher })
    }

    /// Returns true if the text matches, and adds its named groups to `captures`.
    pub fn matches(&self, text: &str, captures: &mut Captures) -> bool {
        match &self.matcher {
            Matcher::Exact => self.text == text,
            Matcher::Glob(glob) => glob.is_match(text),
            Matcher::Regex(regex) if regex.captures_len() == 1 => regex.is_match(text),
            Matcher::Regex(regex) => {
                let Some(found) = regex.captures(text) else { return false };
                for name in regex.capture_names().flatten() {
                    // A group that did not take part in the match is empty.
                    let text = found.name(name).map_or("", |group| group.as_str());
                    captures.0.push((name.to_owned(), text.to_owned()));
                }
                true
            }
        }
    }

    /// Names of the groups in the pattern.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        let regex = match &self.matcher {
            Matcher::Regex(regex) => Some(regex),
            _ => None,
        };
        regex.into_iter().flat_map(|regex| regex.capture_names().flatten())
    }

    /// True if every text matches.
    pub fn matches_everything(&self) -> bool {
        !self.text.is_empty() && self.text.bytes().all(|byte| byte == b'*')
    }

    /// True if every text that matches `other` certainly matches this pattern too.
    pub fn covers(&self, other: &Pattern) -> bool {
        self.matches_everything()
            || self.text == other.text
            || matches!(other.matcher, Matcher::Exact)
                && self.matches(&other.text, &mut Captures::default())
    }
}

/// Texts captured by the named groups of a route's patterns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captures(Vec<(String, String)>);

impl Captures {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, text)| text.as_str())
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        let pattern = Pattern::parse(pattern).expect("a pattern");
        pattern.matches(text, &mut Captures::default())
    }

    #[test]
    fn a_text_a_glob_and_a_regular_expression() {
        for (pattern, yes, no) in [
            ("order", "order", "orders"),
            ("", "", "x"),
            ("order.*", "order.placed", "order"),
            ("order.*", "order.item/added", "xorder.placed"),
            ("?rder", "Order", "rder"),
            ("{order,invoice}.[a-c]*", "invoice.created", "invoice.deleted"),
            (r"a\*", "a*", "ab"),
            ("/^order/", "orders", "an order"),
            ("regex:^order$", "order", "orders"),
            ("/rd/", "order", "odrer"),
            ("*", "", "-"),
        ] {
            assert!(matches(pattern, yes), "{pattern} takes {yes:?}");
            assert!(pattern == "*" || !matches(pattern, no), "{pattern} does not take {no:?}");
        }
    }

    #[test]
    fn what_is_none_says_why_in_a_line() {
        for (pattern, why) in [
            ("/(/", "is not a valid regular expression: unclosed group"),
            ("regex:[", "is not a valid regular expression: unclosed character class"),
            ("{a", "is not a valid glob: unclosed alternate group"),
            ("[a", "is not a valid glob: unclosed character class"),
        ] {
            let problem = Pattern::parse(pattern).expect_err(pattern);
            assert!(problem.starts_with(why) && !problem.contains('\n'), "{pattern}: {problem}");
        }
    }

    #[test]
    fn named_groups_are_kept() {
        let pattern = Pattern::parse(r"/^order\.(?<what>\w+)(?<more>!)?$/").expect("a pattern");
        let mut captures = Captures::default();
        assert!(pattern.matches("order.placed", &mut captures));
        assert_eq!((captures.get("what"), captures.get("more")), (Some("placed"), Some("")));
        assert_eq!(pattern.captures().collect::<Vec<_>>(), ["what", "more"]);
    }

    #[test]
    fn one_covers_another_only_where_that_is_certain() {
        for (one, other, covers) in [
            ("*", "/x/", true),
            ("**", "a.*", true),
            ("a.*", "a.b", true),
            ("/^a/", "a.b", true),
            ("a.*", "a.*", true),
            ("a.b", "a.*", false),
            ("a.*", "b", false),
            ("", "", true),
            ("", "a", false),
        ] {
            let [one, other] = [one, other].map(|text| Pattern::parse(text).expect("a pattern"));
            assert_eq!(one.covers(&other), covers, "{one:?} {other:?}");
        }
    }
}
