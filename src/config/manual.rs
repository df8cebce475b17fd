//! Prints the [reference](super::reference): the table of docs/settings.md and an example file.

use super::reference::{Kind, settings};

/// The settings as a Markdown table, which docs/settings.md has.
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

/// A configuration file that has every setting, commented out, at its default.
pub fn example() -> String {
    let mut file = String::from("# Every setting of factlib, at its default where it has one.\n");
    let mut section = "";
    for setting in settings() {
        let (of, key) = setting.name.rsplit_once('.').unwrap_or(("", setting.name));
        if of != section && !matches!(setting.kind, Kind::Table | Kind::Tables) {
            section = of;
            file += &format!("\n[{section}]\n");
        }
        let allowed = setting.kind.expected();
        file += &format!("# {}\n", setting.doc);
        if setting.kind == Kind::Secret {
            file += &format!("# Or in a file of its own: {key}_file = # the path of the file\n");
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
