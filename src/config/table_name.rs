//! Names of tables: one table's name, and `outbox.table`, which may be a pattern of many names.
//!
//! | `outbox.table` | schema and name |
//! | --- | --- |
//! | `app.facts` | as spelled; the schema is `public` when left out |
//! | `tenant_*.outbox` | a `*` stands for any characters, also none |
//! | `"tenant.a"."out""box*"` | what is quoted is taken literally; `""` is a quote |
//!
//! Not a glob as in a route: names of tables may well have a `?`, `[` or `{`.

use std::fmt;

use postgres_protocol::escape::escape_identifier;
use serde::Deserialize;

/// Schema of a table that names none.
const DEFAULT_SCHEMA: &str = "public";

/// A table's schema and name, as in the catalog. It displays as `outbox.table` spells it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub(crate) struct TableName {
    pub schema: String,
    pub name: String,
}

/// The tables that an `outbox.table` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TablePattern {
    schema: NamePattern,
    name: NamePattern,
}

/// The texts between the stars; a single one without a star.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NamePattern(Vec<String>);

impl TableName {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        TableName { schema: schema.into(), name: name.into() }
    }

    /// The name quoted for SQL.
    pub fn identifier(&self) -> String {
        format!("{}.{}", escape_identifier(&self.schema), escape_identifier(&self.name))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spelled = |text: &str, special: &[char]| match text.contains(special) {
            true => escape_identifier(text),
            false => text.to_owned(),
        };
        let (schema, name) = (&self.schema, &self.name);
        write!(f, "{}.{}", spelled(schema, &['.', '*', '"']), spelled(name, &['*', '"']))
    }
}

impl TablePattern {
    /// Parses an `outbox.table`.
    ///
    /// # Errors
    /// The problem, if it is none.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (first, rest) = NamePattern::parse(text, Some('.'))?;
        let Some(rest) = rest else {
            return Ok(TablePattern { schema: NamePattern::literal(DEFAULT_SCHEMA), name: first });
        };
        // A name may have a dot without quotes.
        let (name, _) = NamePattern::parse(rest, None)?;
        Ok(TablePattern { schema: first, name })
    }

    /// The pattern that only this table matches.
    pub fn literal(name: &TableName) -> Self {
        let [schema, name] = [&name.schema, &name.name].map(|text| NamePattern::literal(text));
        TablePattern { schema, name }
    }

    /// The table's name, unless there is a star.
    pub fn exact(&self) -> Option<TableName> {
        Some(TableName::new(self.schema.exact()?, self.name.exact()?))
    }

    pub fn matches(&self, table: &TableName) -> bool {
        self.schema.matches(&table.schema) && self.name.matches(&table.name)
    }

    /// Schema and name as patterns of SQL's LIKE.
    pub fn like(&self) -> (String, String) {
        (self.schema.like(), self.name.like())
    }
}

impl NamePattern {
    fn literal(text: &str) -> Self {
        NamePattern(vec![text.to_owned()])
    }

    /// Reads a name up to `end`; also returns what is behind that, if it is there.
    fn parse(text: &str, end: Option<char>) -> Result<(Self, Option<&str>), &'static str> {
        let (name, rest) = match text.strip_prefix('"') {
            Some(quoted) => {
                let (name, rest) = unquoted(quoted)?;
                let behind = end.and_then(|end| rest.strip_prefix(end));
                if behind.is_none() && !rest.is_empty() {
                    return Err("expected a dot or the end behind a quoted name");
                }
                (NamePattern(vec![name]), behind)
            }
            None => {
                let (name, rest) = match end.and_then(|end| text.split_once(end)) {
                    Some((name, rest)) => (name, Some(rest)),
                    None => (text, None),
                };
                (NamePattern(name.split('*').map(str::to_owned).collect()), rest)
            }
        };
        match name.0.iter().all(|text| text.trim().is_empty()) && name.exact().is_some() {
            true => Err("expected schema.table"),
            false => Ok((name, rest)),
        }
    }

    fn exact(&self) -> Option<&str> {
        match &self.0[..] {
            [text] => Some(text),
            _ => None,
        }
    }

    fn matches(&self, text: &str) -> bool {
        let [first, between @ .., last] = &self.0[..] else {
            return self.exact() == Some(text);
        };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
        for text in between {
            // The first place is the best: it leaves most to the others.
            let Some((_, behind)) = rest.split_once(text.as_str()) else { return false };
            rest = behind;
        }
        rest.ends_with(last.as_str())
    }

    fn like(&self) -> String {
        let literal =
            |text: &String| text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        self.0.iter().map(literal).collect::<Vec<_>>().join("%")
    }
}

/// Reads a quoted name behind its first quote; also returns what is behind its last one.
fn unquoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (part, behind) = rest.split_once('"').ok_or("a quoted name has no closing quote")?;
        name.push_str(part);
        match behind.strip_prefix('"') {
            Some(behind) => {
                name.push('"');
                rest = behind;
            }
            None => return Ok((name, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> TablePattern {
        TablePattern::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
    }

    #[test]
    fn a_name_is_literal_where_it_has_no_star_or_is_quoted() {
        for (text, schema, name) in [
            ("o", "public", "o"),
            ("app.o", "app", "o"),
            ("App.Facts", "App", "Facts"),
            ("app.a.b", "app", "a.b"),
            ("\"tenant.a\".\"out\"\"box\"", "tenant.a", "out\"box"),
            ("\"a*\".o", "a*", "o"),
            ("app.\"*\"", "app", "*"),
            ("\"o.o\"", "public", "o.o"),
            ("a\"b.c\"d", "a\"b", "c\"d"),
            ("ä_%\\.ß?[{", "ä_%\\", "ß?[{"),
        ] {
            let exact = parse(text).exact().unwrap_or_else(|| panic!("{text} has no star"));
            assert_eq!(exact, TableName::new(schema, name), "{text}");
            assert_eq!(parse(&exact.to_string()), parse(text), "{exact} is read as it is written");
        }
        assert_eq!(TableName::new("public", "o").to_string(), "public.o");
        assert_eq!(TableName::new("a.b", "c.d").to_string(), "\"a.b\".c.d");
        assert_eq!(TableName::new("a", "b\"c").identifier(), "\"a\".\"b\"\"c\"");
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, schema, name, matches) in [
            ("tenant_*.outbox", "tenant_a", "outbox", true),
            ("tenant_*.outbox", "tenant_", "outbox", true),
            ("tenant_*.outbox", "tenant_a.b\"*", "outbox", true),
            ("tenant_*.outbox", "tenantXa", "outbox", false),
            ("tenant_*.outbox", "Tenant_a", "outbox", false),
            ("tenant_*.outbox", "tenant_a", "outbox2", false),
            ("*.*", "a", "b", true),
            ("*_o", "public", "a_o", true),
            ("*_o", "app", "a_o", false),
            ("t*t.o", "t", "o", false),
            ("t*t.o", "tt", "o", true),
            ("a*b*c.o", "axbxbxc", "o", true),
            ("a*b*c.o", "axcxb", "o", false),
            ("a*b*b.o", "ab", "o", false),
            ("\"a.*\".o*", "a.*", "o1", true),
            ("\"a.*\".o*", "a.b", "o1", false),
        ] {
            let table = TableName::new(schema, name);
            assert!(parse(pattern).exact().is_none(), "{pattern} has a star");
            assert_eq!(parse(pattern).matches(&table), matches, "{pattern} and {table}");
        }
        assert!(parse("app.o").matches(&TableName::new("app", "o")));
        assert!(!parse("app.o").matches(&TableName::new("app", "oo")));
        let like = ("te\\_n%\\\\%\\%".to_owned(), "%o".to_owned());
        assert_eq!(parse("te_n*\\*%.*o").like(), like);
    }

    #[test]
    fn what_is_no_name_says_why() {
        for (text, why) in [
            ("", "expected schema.table"),
            (" .o", "expected schema.table"),
            ("app.", "expected schema.table"),
            ("\"\".o", "expected schema.table"),
            ("\"app.o", "a quoted name has no closing quote"),
            ("app.\"o\"\"", "a quoted name has no closing quote"),
            ("\"a\"b.o", "expected a dot or the end behind a quoted name"),
            ("app.\"o\"*", "expected a dot or the end behind a quoted name"),
        ] {
            assert_eq!(TablePattern::parse(text), Err(why), "{text}");
        }
    }
}
