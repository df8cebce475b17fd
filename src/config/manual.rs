//! Prints the [reference](super::reference) as the table of docs/settings.md and as an example file.

use super::reference::{Kind, settings};

/// The settings as a Markdown table, as in docs/settings.md.
pub fn markdown() -> String {
    let mut table = String::from(
        "| Setting | Default | Environment | Allowed | Meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for setting in settings() {
        let env =
            std::iter::once(setting.env()).chain(setting.aliases.iter().map(|a| a.to_string()));
        let env = env.map(|name| match setting.kind {
            Kind::Secret => format!("`{name}`, `{name}_FILE`"),
            _ => format!("`{name}`"),
        });
        let env = env.collect::<Vec<_>>().join(", ");
        let default = setting.default.as_ref().map_or("–".into(), |text| format!("`{text}`"));
        let (name, allowed, doc) = (setting.name, setting.kind.expected(), &setting.doc);
        table += &format!("| `{name}` | {default} | {env} | {allowed} | {doc} |\n");
    }
    table
}

/// A configuration file with every setting at its default, commented out.
pub fn example() -> String {
    let mut file = String::from("# Every setting of factlib, with its default if it has one.\n");
    let mut section = "";
    for setting in settings() {
        let (parent, key) = setting.name.rsplit_once('.').unwrap_or(("", setting.name));
        if parent != section && !matches!(setting.kind, Kind::Table | Kind::Tables) {
            section = parent;
            file += &format!("\n[{section}]\n");
        }
        let allowed = setting.kind.expected();
        file += &format!("# {}\n", setting.doc);
        if setting.kind == Kind::Secret {
            file += &format!("# Or in its own file: {key}_file = # the path of the file\n");
        }
        file += &match (&setting.default, setting.kind) {
            (Some(default), Kind::OneOf(_)) => format!("# {key} = {default} # {allowed}\n"),
            (Some(default), _) => format!("# {key} = {default}\n"),
            (None, Kind::Tables) => format!("# [[{}]]\n", setting.name),
            (None, Kind::Table) => format!("# [{}] # {allowed}\n", setting.name),
            (None, _) => format!("# {key} = # {allowed}; not set\n"),
        };
    }
    file
}
