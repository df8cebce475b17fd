//! The paths of one file that lead out of its module, by tokens: no types are resolved.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Paths of a file, and the modules in it that are compiled for tests alone.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Imports {
    /// Each from the crate's root, with its line.
    pub paths: Vec<(Vec<String>, usize)>,
    /// Names of `#[cfg(test)] mod name;`.
    pub test_modules: Vec<String>,
}

/// Reads the imports of the file that is the module of this path.
///
/// # Errors
/// The text is no Rust.
pub fn imports(text: &str, module: &[String]) -> Result<Imports, String> {
    let tokens: TokenStream = text.parse().map_err(|error| format!("no Rust: {error}"))?;
    let mut found = Imports::default();
    if !text.contains("#![cfg(test)]") {
        walk(tokens, module, &mut found);
    }
    Ok(found)
}

fn walk(tokens: TokenStream, module: &[String], found: &mut Imports) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                at = attribute(&tokens, at, found);
            }
            TokenTree::Ident(ident) if ident == "mod" => {
                let name = tokens.get(at + 1).map(ToString::to_string).unwrap_or_default();
                if let Some(TokenTree::Group(body)) = tokens.get(at + 2) {
                    let inner: Vec<_> = module.iter().cloned().chain([name]).collect();
                    walk(body.stream(), &inner, found);
                    at += 1;
                }
                at += 2;
            }
            TokenTree::Ident(ident) if ident == "use" => {
                let end = position(&tokens, at, |token| is_punct(token, ';'));
                tree(&tokens[at + 1..end], &[], module, found);
                at = end;
            }
            TokenTree::Ident(ident) if ident == "crate" || ident == "super" => {
                let (path, next) = path(&tokens, at);
                if path.len() > 1 {
                    note(&path, ident.span().start().line, module, found);
                }
                at = next;
            }
            TokenTree::Group(group) => {
                walk(group.stream(), module, found);
                at += 1;
            }
            _ => at += 1,
        }
    }
}

/// Passes over an attribute, and over the item behind it where that is for tests alone.
fn attribute(tokens: &[TokenTree], at: usize, found: &mut Imports) -> usize {
    let Some(TokenTree::Group(group)) = tokens.get(at + 1) else { return at + 1 };
    let text: String = group.stream().to_string().split_whitespace().collect();
    let for_tests = text.starts_with("cfg(test")
        || text.starts_with("cfg(all(test")
        || text.starts_with("cfg(doctest")
        || text.starts_with("cfg(all(doctest");
    let mut next = at + 2;
    if !for_tests {
        return next;
    }
    // Other attributes of the item.
    while tokens.get(next).is_some_and(|token| is_punct(token, '#')) {
        next += 2;
    }
    let is_use = tokens[next..].iter().take(3).any(|token| token.to_string() == "use");
    let end = position(tokens, next, |token| {
        let body = matches!(token, TokenTree::Group(g) if g.delimiter() == Delimiter::Brace);
        is_punct(token, ';') || body && !is_use
    });
    let words: Vec<_> = tokens[next..end.min(tokens.len())].iter().collect();
    if let [.., TokenTree::Ident(keyword), TokenTree::Ident(name)] = &words[..]
        && keyword == "mod"
        && tokens.get(end).is_some_and(|token| is_punct(token, ';'))
    {
        found.test_modules.push(name.to_string());
    }
    end + 1
}

/// Expands what stands behind `use`.
fn tree(tokens: &[TokenTree], prefix: &[String], module: &[String], found: &mut Imports) {
    let mut path = prefix.to_vec();
    let mut line = None;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if ident == "as" => break,
            TokenTree::Ident(ident) => {
                line.get_or_insert(ident.span().start().line);
                path.push(ident.to_string());
            }
            TokenTree::Group(group) => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                for branch in inner.split(|token| is_punct(token, ',')) {
                    tree(branch, &path, module, found);
                }
                return;
            }
            _ => {}
        }
    }
    if let Some(line) = line {
        note(&path, line, module, found);
    }
}

/// The names of a path in an expression or a type, and the place behind it.
fn path(tokens: &[TokenTree], mut at: usize) -> (Vec<String>, usize) {
    let mut names = Vec::new();
    while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
        names.push(ident.to_string());
        let colons = |n: usize| tokens.get(at + n).is_some_and(|token| is_punct(token, ':'));
        if !(colons(1) && colons(2)) {
            return (names, at + 1);
        }
        at += 3;
    }
    (names, at)
}

/// Notes a path from the root, if it begins at one of ours.
fn note(path: &[String], line: usize, module: &[String], found: &mut Imports) {
    let supers = path.iter().take_while(|name| *name == "super").count();
    let from_root = match path.first().map(String::as_str) {
        Some("crate") => path[1..].to_vec(),
        Some("super") => {
            let base = &module[..module.len().saturating_sub(supers)];
            base.iter().chain(&path[supers..]).cloned().collect()
        }
        _ => return,
    };
    found.paths.push((from_root, line));
}

fn position(tokens: &[TokenTree], from: usize, is: impl Fn(&TokenTree) -> bool) -> usize {
    let behind = tokens.iter().skip(from).position(is);
    behind.map_or(tokens.len(), |at| from + at)
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        let module = ["kafka".to_owned(), "part".to_owned()];
        let found = imports(text, &module).expect("Rust");
        found.paths.into_iter().map(|(path, _)| path.join("::")).collect()
    }

    #[test]
    fn trees_of_use_are_expanded() {
        let text = "use std::fmt;\npub(crate) use crate::{Error, config::{self as c, Config}};";
        assert_eq!(of(text), ["Error", "config::self", "config::Config"]);
    }

    #[test]
    fn super_leads_out_of_the_file_and_out_of_the_module() {
        assert_eq!(of("use super::room;"), ["kafka::room"]);
        assert_eq!(of("use super::super::status;"), ["status"]);
        assert_eq!(of("mod inner { use super::super::super::status; }"), ["status"]);
    }

    #[test]
    fn paths_in_bodies_and_macros_count() {
        let text = "fn f() -> crate::Lsn { println!(\"{}\", crate::config::X); g::<super::Y>() }";
        assert_eq!(of(text), ["Lsn", "config::X", "kafka::Y"]);
    }

    #[test]
    fn what_is_for_tests_does_not_count() {
        let text = "#[cfg(test)] use crate::{a, b};\n#[cfg(test)]\nmod tests { use crate::c; }\n\
                    #[cfg(test)] #[path = \"x\"] mod probe;\n#[cfg(feature = \"x\")] use crate::d;";
        let found = imports(text, &["m".to_owned()]).expect("Rust");
        assert_eq!(found.paths, [(vec!["d".to_owned()], 5)]);
        assert_eq!(found.test_modules, ["probe"]);
    }

    #[test]
    fn docs_and_texts_do_not_count() {
        assert!(of("/// See [`crate::config`].\nconst A: &str = \"crate::config\";").is_empty());
    }
}
