//! Reads Java's format of `.properties` files.

/// A key with its value, and the number of its first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Property {
    pub key: String,
    pub value: String,
    pub line: usize,
}

/// Reads all properties in their order. Java takes every text, so this does too.
pub(crate) fn parse(text: &str) -> Vec<Property> {
    let mut properties = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let mut logical = line.trim_start().to_owned();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        while continues(&logical) {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical += next.trim_start();
        }
        let (key, value) = split(&logical);
        let (key, value) = (unescape(key), unescape(value));
        properties.push(Property { key, value, line: index + 1 });
    }
    properties
}

/// Returns true if the line ends in an odd number of backslashes.
fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Splits at the first `=`, `:` or blank that is not escaped.
fn split(line: &str) -> (&str, &str) {
    let mut is_escaped = false;
    let end = line.char_indices().find(|(_, c)| {
        let ends = !is_escaped && matches!(c, '=' | ':' | ' ' | '\t' | '\u{c}');
        is_escaped = !is_escaped && *c == '\\';
        ends
    });
    let end = end.map_or(line.len(), |(at, _)| at);
    let (key, rest) = line.split_at(end);
    let blanks = [' ', '\t', '\u{c}'];
    let rest = rest.trim_start_matches(blanks);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(blanks))
}

fn unescape(text: &str) -> String {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    let push = |units: &mut Vec<u16>, c: char| {
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    };
    while let Some(c) = rest.next() {
        if c != '\\' {
            push(&mut units, c);
            continue;
        }
        match rest.next() {
            Some('n') => push(&mut units, '\n'),
            Some('t') => push(&mut units, '\t'),
            Some('r') => push(&mut units, '\r'),
            Some('f') => push(&mut units, '\u{c}'),
            Some('u') => {
                let digits: String = rest.clone().take(4).collect();
                match u16::from_str_radix(&digits, 16) {
                    Ok(unit) if digits.len() == 4 => {
                        units.push(unit);
                        rest.nth(3);
                    }
                    _ => push(&mut units, 'u'),
                }
            }
            Some(other) => push(&mut units, other),
            None => {}
        }
    }
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String, usize)> {
        parse(text).into_iter().map(|of| (of.key, of.value, of.line)).collect()
    }

    #[test]
    fn keys_values_and_lines_are_read_as_java_reads_them() {
        let text = "# a comment\n\
                    ! another\n\
                    a=1\n\
                    b : two words \n\
                    c three\n\
                    \n  d.e = x=y:z\n\
                    long=one,\\\n      two\n\
                    esc\\=aped=\\u00e9\\ttab\\\\\n\
                    empty=\n\
                    bare\n\
                    r=out.\\\\${routedByValue}\n";
        let expected = [
            ("a", "1", 3),
            ("b", "two words ", 4),
            ("c", "three", 5),
            ("d.e", "x=y:z", 7),
            ("long", "one,two", 8),
            ("esc=aped", "é\ttab\\", 10),
            ("empty", "", 11),
            ("bare", "", 12),
            ("r", "out.\\${routedByValue}", 13),
        ];
        let expected = expected.map(|(key, value, line)| (key.to_owned(), value.to_owned(), line));
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn a_surrogate_pair_is_one_character_and_a_broken_escape_loses_its_backslash() {
        assert_eq!(
            pairs("a=\\ud83d\\ude00\nb=\\uzz\nc=\\")[..2].to_vec(),
            [("a".to_owned(), "😀".to_owned(), 1), ("b".to_owned(), "uzz".to_owned(), 2)]
        );
    }

    proptest::proptest! {
        #[test]
        fn every_text_is_read(text: String) {
            let _ = parse(&text);
        }
    }
}
