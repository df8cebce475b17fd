//! Java's regular expressions as Rust's, with every group named.

/// A translated expression, and the groups that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RustRegex {
    pub text: String,
    /// Names of Java's groups, by their number from 1 on; the group `n` is named `g{n}` here.
    pub groups: Vec<Option<String>>,
}

/// Translates an expression.
///
/// # Errors
/// The part of it that Rust's expressions can't express.
pub(super) fn translate(java: &str) -> Result<RustRegex, String> {
    let mut text = String::with_capacity(java.len() + 16);
    let mut groups = Vec::new();
    let mut rest = java.chars().peekable();
    let mut in_class = 0_u32;
    let mut after_quantifier = false;
    while let Some(c) = rest.next() {
        let was_quantified = std::mem::take(&mut after_quantifier);
        match c {
            '\\' => escape(&mut rest, &mut text, in_class > 0)?,
            '[' => {
                in_class += 1;
                text.push(c);
            }
            ']' if in_class > 0 => {
                in_class -= 1;
                text.push(c);
            }
            '(' if in_class == 0 => group(&mut rest, &mut text, &mut groups)?,
            '+' if in_class == 0 && was_quantified => {
                return Err("a possessive quantifier".into());
            }
            '*' | '+' | '?' | '}' if in_class == 0 => {
                after_quantifier = !(was_quantified && c == '?');
                text.push(c);
            }
            '&' if in_class > 0 && rest.peek() == Some(&'&') => {
                return Err("an intersection of classes".into());
            }
            _ => text.push(c),
        }
    }
    if let Err(error) = regex::Regex::new(&text) {
        let last = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
        return Err(last.trim_start_matches("error: ").to_owned());
    }
    Ok(RustRegex { text, groups })
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Java's classes are of ASCII, Rust's of Unicode.
fn escape(rest: &mut Chars<'_>, text: &mut String, in_class: bool) -> Result<(), String> {
    let class = |text: &mut String, members: &str| match in_class {
        true => text.push_str(members),
        false => *text += &format!("[{members}]"),
    };
    let without = |text: &mut String, members: &str| match in_class {
        true => Err("a negated class within a class".to_owned()),
        false => {
            *text += &format!("[^{members}]");
            Ok(())
        }
    };
    match rest.next() {
        Some('d') => class(text, "0-9"),
        Some('w') => class(text, "a-zA-Z0-9_"),
        Some('s') => class(text, r" \t\n\x0B\f\r"),
        Some('D') => without(text, "0-9")?,
        Some('W') => without(text, "a-zA-Z0-9_")?,
        Some('S') => without(text, r" \t\n\x0B\f\r")?,
        Some('Q') => {
            let mut literal = String::new();
            while let Some(c) = rest.next() {
                if c == '\\' && rest.peek() == Some(&'E') {
                    rest.next();
                    break;
                }
                literal.push(c);
            }
            text.push_str(&regex::escape(&literal));
        }
        Some('k' | '1'..='9') => return Err("a back reference".into()),
        Some('Z') => text.push_str(r"\z"),
        Some(c) if c.is_ascii_alphabetic() && !"tnrfaxupPbBAz".contains(c) => {
            return Err(format!("\\{c}"));
        }
        Some(c) => {
            text.push('\\');
            text.push(c);
        }
        None => return Err("a backslash at its end".into()),
    }
    Ok(())
}

fn group(
    rest: &mut Chars<'_>,
    text: &mut String,
    groups: &mut Vec<Option<String>>,
) -> Result<(), String> {
    if rest.peek() != Some(&'?') {
        groups.push(None);
        *text += &format!("(?<g{}>", groups.len());
        return Ok(());
    }
    rest.next();
    match rest.next() {
        Some('<') => match rest.peek() {
            Some('=' | '!') => return Err("a look behind".into()),
            _ => {
                let name: String = rest.by_ref().take_while(|c| *c != '>').collect();
                groups.push(Some(name));
                *text += &format!("(?<g{}>", groups.len());
            }
        },
        Some('=' | '!') => return Err("a look ahead".into()),
        Some('>') => return Err("an atomic group".into()),
        Some(c) => {
            text.push_str("(?");
            text.push(c);
        }
        None => return Err("an open group".into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_numbered_and_classes_are_of_ascii() {
        for (java, rust, groups) in [
            ("(?<routedByValue>.*)", "(?<g1>.*)", vec![Some("routedByValue")]),
            (r"(\w+)\.v([\d.]+)", r"(?<g1>[a-zA-Z0-9_]+)\.v(?<g2>[0-9.]+)", vec![None, None]),
            (r"(?:a|b)\Q.(\E", r"(?:a|b)\.\(", vec![]),
            ("(a*?)b??", "(?<g1>a*?)b??", vec![None]),
        ] {
            let translated = translate(java).expect(java);
            assert_eq!(translated.text, rust);
            let groups: Vec<_> = groups.into_iter().map(|name| name.map(str::to_owned)).collect();
            assert_eq!(translated.groups, groups);
        }
    }

    #[test]
    fn what_rust_lacks_is_named() {
        for (java, what) in [
            ("(?=a)", "a look ahead"),
            ("(?<!a)", "a look behind"),
            ("(?>a)", "an atomic group"),
            ("a++", "a possessive quantifier"),
            (r"(a)\1", "a back reference"),
            (r"[a&&b]", "an intersection of classes"),
            (r"\R", r"\R"),
            ("(", "unclosed group"),
        ] {
            assert_eq!(translate(java), Err(what.to_owned()), "{java}");
        }
    }
}
