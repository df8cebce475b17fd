//! Splits connection strings into keywords and values as libpq does.
//!
//! The rules are those of PostgreSQL's "Connection Strings" (`libpq-connect.html`):
//! a URL, or `keyword=value` pairs. `connect_info` interprets the keywords. No error quotes the text,
//! because a password may be anywhere in it.

use crate::{Error, ErrorKind, Result};

/// Keywords and values in order; a later value of a keyword overrides an earlier one.
pub(super) type Parameters = Vec<(String, String)>;

/// Splits a connection string.
pub(super) fn parse(text: &str) -> Result<Parameters> {
    let text = text.trim();
    let url = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
    match url {
        Some(rest) => parse_url(rest),
        None if text.split([' ', '=', '\'']).next().unwrap_or_default().contains("://") => {
            Err(invalid("its scheme is not postgresql:// or postgres://"))
        }
        None => parse_pairs(text),
    }
}

fn parse_url(rest: &str) -> Result<Parameters> {
    let mut parameters = Parameters::new();
    // As in libpq, a user ends at the first @ before the first /.
    let authority = rest.split('/').next().unwrap_or_default();
    let rest = match authority.split_once('@') {
        Some((user, _)) => {
            let (name, password) = match user.split_once(':') {
                Some((name, password)) => (name, Some(password)),
                None => (user, None),
            };
            push(&mut parameters, "user", percent_decode(name)?);
            if let Some(password) = password {
                push(&mut parameters, "password", percent_decode(password)?);
            }
            rest.get(user.len() + 1..).unwrap_or_default()
        }
        None => rest,
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let (hosts, dbname) = match rest.split_once('/') {
        Some((hosts, dbname)) => (hosts, Some(dbname)),
        None => (rest, None),
    };
    // libpq takes the rest of a password for a host or a database, and prints it.
    if rest.contains('@') {
        return Err(invalid(
            "it has more than one @, or a / before it: in a user or a password, write @ as %40 and / as %2F",
        ));
    }
    let (hosts, ports) = parse_hosts(hosts)?;
    push(&mut parameters, "host", hosts);
    push(&mut parameters, "port", ports);
    if let Some(dbname) = dbname {
        push(&mut parameters, "dbname", percent_decode(dbname)?);
    }
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (keyword, value) = pair
            .split_once('=')
            .ok_or_else(|| invalid("a parameter after the ? has no = and value"))?;
        let (keyword, value) = (percent_decode(keyword)?, percent_decode(value)?);
        match (keyword.as_str(), value.as_str()) {
            // JDBC's spelling, which libpq takes too.
            ("ssl", "true") => push(&mut parameters, "sslmode", "require".into()),
            _ => push(&mut parameters, &keyword, value),
        }
    }
    Ok(parameters)
}

/// Splits `h1:p1,[::1]:p2,…` into libpq's two comma-separated lists, hosts and ports.
fn parse_hosts(list: &str) -> Result<(String, String)> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for item in list.split(',') {
        let (host, port) = if let Some(rest) = item.strip_prefix('[') {
            let (host, rest) = rest
                .split_once(']')
                .ok_or_else(|| invalid("an IPv6 address has no closing bracket"))?;
            match rest.strip_prefix(':') {
                Some(port) => (host, port),
                None if rest.is_empty() => (host, ""),
                None => {
                    return Err(invalid("after an IPv6 address there must be a colon and a port"));
                }
            }
        } else {
            item.split_once(':').unwrap_or((item, ""))
        };
        hosts.push(percent_decode(host)?);
        ports.push(percent_decode(port)?);
    }
    let join = |items: Vec<String>| match items.iter().all(String::is_empty) {
        true => String::new(),
        false => items.join(","),
    };
    Ok((join(hosts), join(ports)))
}

fn push(parameters: &mut Parameters, keyword: &str, value: String) {
    // An empty part of a URL does not set its keyword.
    if !value.is_empty() {
        parameters.push((keyword.to_owned(), value));
    }
}

fn percent_decode(text: &str) -> Result<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        match (digit(), digit()) {
            (Some(0), Some(0)) => return Err(invalid("it contains %00")),
            // Two digits of base 16 fit a byte.
            (Some(high), Some(low)) => decoded.push((high << 4 | low) as u8),
            _ => {
                return Err(invalid(
                    "a % is not followed by two hexadecimal digits (write % as %25)",
                ));
            }
        }
    }
    String::from_utf8(decoded).map_err(|_| invalid("what is percent-encoded is not UTF-8"))
}

fn parse_pairs(text: &str) -> Result<Parameters> {
    let mut parameters = Parameters::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some((keyword, after)) = rest.split_once('=') else {
            return Err(invalid(
                "it is neither a postgresql:// URL nor keyword=value pairs: a = is missing",
            ));
        };
        let keyword = keyword.trim_end();
        if keyword.is_empty() || keyword.contains(char::is_whitespace) {
            return Err(invalid("a keyword has no = and value"));
        }
        let (value, after) = take_value(after.trim_start())?;
        parameters.push((keyword.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(parameters)
}

/// Splits off one value, with quotes and backslashes as in libpq.
fn take_value(text: &str) -> Result<(String, &str)> {
    let (quoted, text) = match text.strip_prefix('\'') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        let rest = chars.as_str();
        match chars.next() {
            Some('\\') => value.extend(chars.next()),
            Some('\'') if quoted => return Ok((value, chars.as_str())),
            Some(c) if !quoted && c.is_whitespace() => return Ok((value, rest)),
            Some(c) => value.push(c),
            None if quoted => return Err(invalid("a quoted value has no closing quote")),
            None => return Ok((value, "")),
        }
    }
}

fn invalid(reason: &str) -> Error {
    Error::new(ErrorKind::Config, format!("the PostgreSQL connection string is invalid: {reason}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn urls_are_split_as_libpq_does() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("postgresql://", &[]),
            ("postgres://localhost", &[("host", "localhost")]),
            ("postgresql://localhost:5433", &[("host", "localhost"), ("port", "5433")]),
            ("postgresql://localhost/mydb", &[("host", "localhost"), ("dbname", "mydb")]),
            ("postgresql://user@localhost", &[("user", "user"), ("host", "localhost")]),
            (
                "postgresql://us%3Aer:p%40s%2Fs@h/d?sslmode=require&application_name=a%20b",
                &[
                    ("user", "us:er"),
                    ("password", "p@s/s"),
                    ("host", "h"),
                    ("dbname", "d"),
                    ("sslmode", "require"),
                    ("application_name", "a b"),
                ],
            ),
            (
                "postgresql://host1:123,host2:456/somedb?target_session_attrs=any",
                &[
                    ("host", "host1,host2"),
                    ("port", "123,456"),
                    ("dbname", "somedb"),
                    ("target_session_attrs", "any"),
                ],
            ),
            ("postgresql://a,b:7", &[("host", "a,b"), ("port", ",7")]),
            (
                "postgresql://[2001:db8::1234]:1/database",
                &[("host", "2001:db8::1234"), ("port", "1"), ("dbname", "database")],
            ),
            ("postgresql://%2Fvar%2Frun/db", &[("host", "/var/run"), ("dbname", "db")]),
            (
                "postgresql:///db?host=/var/run&port=5433",
                &[("dbname", "db"), ("host", "/var/run"), ("port", "5433")],
            ),
            ("postgresql://h?ssl=true", &[("host", "h"), ("sslmode", "require")]),
            ("postgresql://u:p?w@h", &[("user", "u"), ("password", "p?w"), ("host", "h")]),
        ];
        for (text, expected) in cases {
            assert_eq!(parsed(text), pairs(expected), "{text}");
        }
    }

    #[test]
    fn pairs_are_split_as_libpq_does() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("", &[]),
            ("host=a  port = 5", &[("host", "a"), ("port", "5")]),
            (
                r"password='it\'s a \\ pass' user=u",
                &[("password", r"it's a \ pass"), ("user", "u")],
            ),
            (r"password=a\ b", &[("password", "a b")]),
            ("host='' port=1", &[("host", ""), ("port", "1")]),
            ("password=x://y host=h", &[("password", "x://y"), ("host", "h")]),
        ];
        for (text, expected) in cases {
            assert_eq!(parsed(text), pairs(expected), "{text}");
        }
    }

    const AT: &str = "it has more than one @, or a / before it: in a user or a password, write @ as \
                      %40 and / as %2F";

    #[test]
    fn what_is_malformed_is_refused_without_being_repeated() {
        for (text, reason) in [
            ("mysql://secret@h", "its scheme is not postgresql:// or postgres://"),
            (
                "postgresql://u:%zzsecret@h",
                "a % is not followed by two hexadecimal digits (write % as %25)",
            ),
            ("postgresql://u:secret%00@h", "it contains %00"),
            ("postgresql://u:secret%ff@h", "what is percent-encoded is not UTF-8"),
            ("postgresql://[::1/secret", "an IPv6 address has no closing bracket"),
            ("postgresql://[::1]secret", "after an IPv6 address there must be a colon and a port"),
            ("postgresql://h/d?secret", "a parameter after the ? has no = and value"),
            ("postgresql://u:p@secret@h/d", AT),
            ("postgresql://u:1/secret@h/d", AT),
            ("postgresql://secret/p@h/d", AT),
            ("password='secret", "a quoted value has no closing quote"),
            ("secret", "it is neither a postgresql:// URL nor keyword=value pairs: a = is missing"),
            ("host secret=1", "a keyword has no = and value"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            let message = "the PostgreSQL connection string is invalid";
            assert_eq!(error.to_string(), format!("{message}: {reason}"));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_split_or_refused(text in "(postgres://)?[ -~é]{0,40}") {
            let _ = parse(&text);
        }
    }
}
