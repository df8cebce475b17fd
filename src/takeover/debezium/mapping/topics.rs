//! Topics of events by `route.topic.regex` and `route.topic.replacement`, as factlib's routes.

use super::java_regex::{RustRegex, translate};

/// The topics that a connector's events go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Topics {
    /// `{prefix}.{aggregate_type}`, by `outbox.topic_prefix`.
    Prefix(String),
    /// The same template for every event.
    Template(String),
    /// A template for the aggregate types that match, and the aggregate type itself for others.
    Matching { pattern: String, template: String },
}

/// Finds the topics.
///
/// # Errors
/// The reason why routes can't express them.
pub(super) fn topics(regex: &str, replacement: &str) -> Result<Topics, String> {
    let translated = translate(regex).map_err(|part| {
        format!("Rust's regular expressions lack {part}: write [[route]]s for your aggregate types")
    })?;
    let takes_all = ["(?<g1>.*)", ".*", "^.*$", "^(?<g1>.*)$"].contains(&translated.text.as_str());
    let names = |group: usize| match (takes_all, group) {
        // The whole text.
        (_, 0) | (true, 1) => "{aggregate_type}".to_owned(),
        (_, group) => format!("{{g{group}}}"),
    };
    let template = template(replacement, &translated, names)?;
    if !takes_all {
        let pattern = format!("/^(?:{})$/", translated.text);
        return Ok(Topics::Matching { pattern, template });
    }
    match template.strip_suffix(".{aggregate_type}") {
        Some(prefix) if !prefix.is_empty() && !prefix.contains(['{', '}']) => {
            Ok(Topics::Prefix(prefix.to_owned()))
        }
        _ => Ok(Topics::Template(template)),
    }
}

/// Translates Java's replacement: `$1`, `${name}`, and a backslash before a literal character.
fn template(
    replacement: &str,
    regex: &RustRegex,
    name: impl Fn(usize) -> String,
) -> Result<String, String> {
    let mut template = String::with_capacity(replacement.len());
    let mut rest = replacement.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => template.extend(rest.next()),
            '$' if rest.peek() == Some(&'{') => {
                rest.next();
                let group: String = rest.by_ref().take_while(|c| *c != '}').collect();
                let found = regex.groups.iter().position(|other| other.as_deref() == Some(&group));
                let Some(at) = found else {
                    return Err(format!("route.topic.regex has no group {group:?}"));
                };
                template += &name(at + 1);
            }
            '$' => {
                let Some(first) = rest.peek().and_then(|c| c.to_digit(10)) else {
                    return Err("a dollar without the number of a group".into());
                };
                rest.next();
                let mut group = first as usize;
                // Java takes further digits as long as there is such a group.
                while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
                    let longer = group * 10 + digit as usize;
                    if longer > regex.groups.len() {
                        break;
                    }
                    group = longer;
                    rest.next();
                }
                if group > regex.groups.len() {
                    return Err(format!("route.topic.regex has no group {group}"));
                }
                template += &name(group);
            }
            '{' => template.push_str("{{"),
            '}' => template.push_str("}}"),
            c => template.push(c),
        }
    }
    Ok(template)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "(?<routedByValue>.*)";

    #[test]
    fn each_shape_has_its_setting() {
        let matching = |pattern: &str, template: &str| Topics::Matching {
            pattern: pattern.into(),
            template: template.into(),
        };
        for (regex, replacement, expected) in [
            (ALL, "outbox.event.${routedByValue}", Topics::Prefix("outbox.event".into())),
            (ALL, "events", Topics::Template("events".into())),
            (ALL, "${routedByValue}", Topics::Template("{aggregate_type}".into())),
            (ALL, "${routedByValue}.events", Topics::Template("{aggregate_type}.events".into())),
            ("(.*)", "a.$1", Topics::Prefix("a".into())),
            (".*", "x$0", Topics::Template("x{aggregate_type}".into())),
            (
                r"(.*)_v(\d+)",
                "events.$1.v$2",
                matching(r"/^(?:(?<g1>.*)_v(?<g2>[0-9]+))$/", "events.{g1}.v{g2}"),
            ),
            (
                "(?<a>[a-z]+)-(?<b>.*)",
                "${b}.${a}",
                matching("/^(?:(?<g1>[a-z]+)-(?<g2>.*))$/", "{g2}.{g1}"),
            ),
            ("(a)b", "x$10\\$y", matching("/^(?:(?<g1>a)b)$/", "x{g1}0$y")),
        ] {
            assert_eq!(topics(regex, replacement), Ok(expected), "{regex} {replacement}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (regex, replacement, why) in [
            ("(?!a).*", "x", "Rust's regular expressions lack a look ahead"),
            (ALL, "$2", "route.topic.regex has no group 2"),
            (ALL, "${other}", "route.topic.regex has no group \"other\""),
            (ALL, "a$", "a dollar without the number of a group"),
        ] {
            let error = topics(regex, replacement).expect_err(regex);
            assert!(error.starts_with(why), "{error}");
        }
    }
}
