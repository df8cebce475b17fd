//! What `src/lib.rs` declares and exports again.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};

/// The modules of the root, and the names that it exports out of them.
pub struct Root {
    pub modules: Vec<String>,
    /// The module that a name of the root is of.
    exports: BTreeMap<String, String>,
}

impl Root {
    /// Reads `src/lib.rs`.
    ///
    /// # Errors
    /// The text is no Rust.
    pub fn read(lib: &str) -> Result<Self, String> {
        let tokens: TokenStream = lib.parse().map_err(|error| format!("src/lib.rs: {error}"))?;
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut root = Root { modules: Vec::new(), exports: BTreeMap::new() };
        for statement in
            tokens.split(|token| matches!(token, TokenTree::Punct(p) if p.as_char() == ';'))
        {
            let at = |word: &str| statement.iter().position(|token| token.to_string() == word);
            if let Some(at) = at("use") {
                root.export(&statement[at + 1..], None);
            } else if let Some(at) = at("mod") {
                root.modules.extend(statement.get(at + 1).map(ToString::to_string));
            }
        }
        Ok(root)
    }

    /// The module that a path from the root begins in: the root's own, or the one that its first
    /// name is exported from.
    pub fn module_of(&self, path: &[String]) -> Option<&str> {
        let first = path.first()?;
        let declared = self.modules.iter().find(|module| *module == first);
        declared.or_else(|| self.exports.get(first)).map(String::as_str)
    }

    fn export(&mut self, tokens: &[TokenTree], module: Option<&str>) {
        let mut names = Vec::new();
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if ident == "self" || ident == "as" => {}
                TokenTree::Ident(ident) => names.push(ident.to_string()),
                TokenTree::Group(group) => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    let module = module.map(str::to_owned).or_else(|| names.first().cloned());
                    let comma = |token: &TokenTree| token.to_string() == ",";
                    for branch in inner.split(comma) {
                        self.export(branch, module.as_deref());
                    }
                    return;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        let module = module.or(names.first().map(String::as_str));
        if let (Some(module), Some(name)) = (module, names.last()) {
            self.exports.insert(name.clone(), module.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_root_are_of_the_modules_that_they_come_from() {
        let lib = "//! Docs.\nmod a;\npub mod b;\n#[cfg(x)]\npub use self::{a::{X, y::Y}, b::Z as W};\n\
                   pub use factlib_emit as emit;\nfn f() {}";
        let root = Root::read(lib).expect("Rust");
        assert_eq!(root.modules, ["a", "b"]);
        let of = |name: &str| root.module_of(&[name.to_owned()]).map(str::to_owned);
        assert_eq!(
            (of("X"), of("Y"), of("W")),
            (Some("a".into()), Some("a".into()), Some("b".into()))
        );
        assert_eq!(
            (of("b"), of("emit"), of("f")),
            (Some("b".into()), Some("factlib_emit".into()), None)
        );
    }
}
