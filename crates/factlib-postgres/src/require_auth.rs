//! `require_auth`: the authentication methods that a server may ask for.
//!
//! The rules are libpq's: a list of allowed methods, or a list of forbidden ones with a `!` before
//! each.

use super::settings::{Settings, invalid};
use crate::Result;

/// An authentication method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// No authentication.
    None,
    Password,
    Md5,
    Scram,
    /// Kerberos, which is not supported.
    Gss,
    Sspi,
}

const METHODS: [(&str, Method); 6] = [
    ("none", Method::None),
    ("password", Method::Password),
    ("md5", Method::Md5),
    ("scram-sha-256", Method::Scram),
    ("gss", Method::Gss),
    ("sspi", Method::Sspi),
];

/// The allowed methods; all of them without `require_auth`.
#[derive(Clone, Debug, Default)]
pub(super) struct RequireAuth(Option<Allowed>);

#[derive(Clone, Debug)]
struct Allowed {
    methods: Vec<Method>,
    /// The setting as it was written, for errors.
    text: String,
}

impl RequireAuth {
    pub fn read(settings: &Settings<'_>) -> Result<Self> {
        const KEYWORD: &str = "require_auth";
        let Some(text) = settings.text(KEYWORD) else { return Ok(RequireAuth::default()) };
        let (mut named, mut negated) = (Vec::new(), 0);
        for word in text.split(',').map(str::trim) {
            let name = word.strip_prefix('!').unwrap_or(word);
            negated += usize::from(word.starts_with('!'));
            let Some((_, method)) = METHODS.iter().find(|(known, _)| *known == name) else {
                let names = METHODS.map(|(name, _)| name).join(", ");
                return Err(invalid(KEYWORD, &format!("must be a list of {names}")));
            };
            named.push(*method);
        }
        if negated != 0 && negated != named.len() {
            return Err(invalid(KEYWORD, "must have a ! before each method or before none"));
        }
        let allowed = |method: &Method| named.contains(method) == (negated == 0);
        let methods = METHODS.map(|(_, method)| method).into_iter().filter(allowed).collect();
        Ok(RequireAuth(Some(Allowed { methods, text })))
    }

    /// Returns the reason why a login by this method is refused; none if it is allowed.
    pub fn refusal(&self, method: Method) -> Option<String> {
        let allowed = self.0.as_ref().filter(|allowed| !allowed.methods.contains(&method))?;
        let asks = match method {
            Method::None => "the server lets us in without asking who we are".to_owned(),
            method => {
                let names = METHODS.iter().find(|(_, known)| *known == method);
                let name = names.map_or("unknown", |(name, _)| name);
                format!("the server asks for the method {name}")
            }
        };
        Some(format!("{asks}, and require_auth={} does not allow it", allowed.text))
    }

    /// Returns the method of an authentication request by its code in the protocol; none for a code
    /// that is not a first request.
    pub fn method(code: i32) -> Option<Method> {
        match code {
            0 => Some(Method::None),
            3 => Some(Method::Password),
            5 => Some(Method::Md5),
            2 | 7 => Some(Method::Gss),
            9 => Some(Method::Sspi),
            10 => Some(Method::Scram),
            _ => None,
        }
    }
}

/// Remedy if a server asks for a method that is not allowed.
pub(super) const AUTH_REMEDY: &str =
    "correct pg_hba.conf on the server, or require_auth in the connection string";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RequireAuth> {
        let given = vec![("require_auth".to_owned(), text.to_owned())];
        RequireAuth::read(&Settings::new(given, &|_| None)?)
    }

    fn allowed(text: &str) -> Vec<&'static str> {
        let required = read(text).expect("a list");
        let methods = METHODS.iter().filter(|(_, method)| required.refusal(*method).is_none());
        methods.map(|(name, _)| *name).collect()
    }

    #[test]
    fn methods_are_allowed_or_forbidden_by_a_list() {
        assert_eq!(allowed("scram-sha-256"), ["scram-sha-256"]);
        assert_eq!(allowed("md5, scram-sha-256"), ["md5", "scram-sha-256"]);
        assert_eq!(allowed("!password,!md5,!none"), ["scram-sha-256", "gss", "sspi"]);
        assert_eq!(allowed("").len(), METHODS.len());
        for (text, reason) in [
            ("scram", "must be a list of none, password, md5, scram-sha-256, gss, sspi"),
            ("md5,!none", "must have a ! before each method or before none"),
        ] {
            let error = read(text).expect_err("refused");
            assert!(error.to_string().contains(reason), "{error}");
        }
        let refusal = read("scram-sha-256").expect("a list").refusal(Method::Md5);
        let text = "the server asks for the method md5, and require_auth=scram-sha-256 does not \
                    allow it";
        assert_eq!(refusal.as_deref(), Some(text));
        let refusal = read("!none").expect("a list").refusal(Method::None);
        let text = "the server lets us in without asking who we are, and require_auth=!none does \
                    not allow it";
        assert_eq!(refusal.as_deref(), Some(text));
    }
}
