//! Shows what a command wrote about its failure, without what may be a secret.

/// Characters of the excerpt.
const LENGTH_MAX: usize = 300;
/// A run of token characters of this length may be a secret.
const TOKEN_MIN: usize = 24;
const REDACTED: &str = "[redacted]";
/// The value that follows a word with one of these parts may be a secret.
const SECRETS: [&str; 9] =
    ["password", "passwd", "pwd", "secret", "token", "credential", "signature", "bearer", "apikey"];

/// Returns the end of the text in one line, without `password` and what else may be a secret.
pub(super) fn excerpt(text: &str, password: &str) -> String {
    // A short one would blot out single letters.
    let text = match password.len() {
        0..4 => text.to_owned(),
        _ => text.replace(password, REDACTED),
    };
    let mut words = Vec::new();
    let mut names_secret = false;
    for word in text.split_whitespace() {
        words.push(redacted(word, names_secret));
        names_secret = ends_as_name(word);
    }
    let line = words.join(" ");
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    // The end says what failed; before it, there may be pages.
    match line.char_indices().rev().nth(LENGTH_MAX - 1) {
        Some((start, _)) if start > 0 => format!("… {}", line.get(start..).unwrap_or_default()),
        _ => line,
    }
}

/// True if the next word is the value of this one, such as `--password` or `token:`.
fn ends_as_name(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let name = lower.trim_end_matches([':', '=']);
    let is_name = name.len() < lower.len() || lower.starts_with('-') || name.ends_with("bearer");
    is_name && SECRETS.iter().any(|secret| name.contains(secret))
}

fn redacted(word: &str, is_value: bool) -> String {
    if is_value {
        return REDACTED.into();
    }
    // `password=value`, also within the query of a URL.
    if let Some((name, value)) = word.split_once(['=', ':'])
        && !value.is_empty()
        && SECRETS.iter().any(|secret| name.to_ascii_lowercase().contains(secret))
    {
        let end = name.len() + 1;
        return format!("{}{REDACTED}", word.get(..end).unwrap_or_default());
    }
    // `scheme://user:password@host`
    if let Some((scheme, rest)) = word.split_once("://")
        && let Some((_, host)) = rest.rsplit_once('@')
    {
        return format!("{scheme}://{REDACTED}@{host}");
    }
    let is_path = word.trim_start_matches(['"', '\'', '(']).starts_with(['/', '.', '~']);
    let mut runs = word.split(|c: char| !is_token_char(c));
    if !is_path && runs.any(looks_random) { REDACTED.into() } else { word.to_owned() }
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+/=_-.%".contains(c)
}

/// True for a long run of digits and of letters of both cases.
fn looks_random(run: &str) -> bool {
    let has = |is: fn(&char) -> bool| run.chars().any(|c| is(&c));
    run.len() >= TOKEN_MIN
        && has(char::is_ascii_digit)
        && has(char::is_ascii_lowercase)
        && has(char::is_ascii_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_stays_and_what_may_be_a_secret_goes() {
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJhY2NvdW50cyJ9.c2lnbmF0dXJl";
        for (text, shown) in [
            ("", ""),
            ("Unable to locate credentials\n", "Unable to locate credentials"),
            (
                "no such file: /opt/Aws3/lib/python3.11/Credentials0.py",
                "no such file: /opt/Aws3/lib/python3.11/Credentials0.py",
            ),
            (
                "refused by db1.abc123.eu-west-1.rds.amazonaws.com",
                "refused by db1.abc123.eu-west-1.rds.amazonaws.com",
            ),
            (&format!("a token {jwt} expired"), "a token [redacted] expired"),
            ("--password hunter2 is wrong", "--password [redacted] is wrong"),
            ("password=hunter2 is wrong", "password=[redacted] is wrong"),
            ("Client-Secret: hunter2", "Client-Secret: [redacted]"),
            ("Authorization: Bearer abc", "Authorization: Bearer [redacted]"),
            ("at https://me:hunter2@vault/v1", "at https://[redacted]@vault/v1"),
            ("?X-Amz-Signature=0a1b is old", "?X-Amz-Signature=[redacted] is old"),
            ("printed hunter3, and\n  failed", "printed [redacted], and failed"),
            ("a\u{1b}[31m colour", "a[31m colour"),
        ] {
            assert_eq!(excerpt(text, "hunter3"), shown);
        }
        assert_eq!(excerpt("a b", "a"), "a b");
        let long = excerpt(&"word ".repeat(200), "");
        assert!(long.starts_with("… ") && long.chars().count() == LENGTH_MAX + 2, "{long}");
    }
}
