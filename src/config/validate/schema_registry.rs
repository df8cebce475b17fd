//! Validates `[schema_registry]` and the formats that need it.

use super::{Check, missing, positive, quoted, wrong};
use crate::config::{Config, Mistake};

pub(super) fn check(config: &Config) -> Check {
    let registry = &config.schema_registry;
    for url in &registry.url {
        check_url(url)?;
    }
    match (&registry.username, &registry.password) {
        (Some(_), None) => {
            return missing("schema_registry.password", "schema_registry.username needs it");
        }
        (None, Some(_)) => {
            return missing("schema_registry.username", "schema_registry.password needs it");
        }
        _ => {}
    }
    if let Some(path) = &registry.tls_ca
        && !registry.url.iter().any(|url| url.starts_with("https:"))
    {
        let problem = "has no effect without an https address in schema_registry.url";
        return wrong("schema_registry.tls_ca", quoted(&path.to_string_lossy()), problem);
    }
    positive("schema_registry.timeout", registry.timeout)?;
    for (index, route) in config.route.iter().enumerate() {
        let given = [("subject", &route.subject), ("schema", &route.schema)];
        let given = given.into_iter().find_map(|(name, text)| Some((name, text.as_ref()?)));
        let format = route.format.unwrap_or(config.kafka.format);
        if let Some((name, text)) = given.filter(|_| !format.has_schema()) {
            let problem = "only records of a format confluent-… have a schema";
            return wrong(format!("route[{index}].{name}"), quoted(text), problem);
        }
    }
    let of_routes = config.route.iter().enumerate();
    let of_routes = of_routes.map(|(n, route)| (format!("route[{n}].format"), route.format));
    let formats = [("kafka.format".to_owned(), Some(config.kafka.format))].into_iter();
    for (setting, format) in formats.chain(of_routes) {
        let Some(format) = format.filter(|format| format.has_schema()) else { continue };
        #[cfg(not(feature = "schema-registry"))]
        let problem = Some(crate::config::SchemaRegistryConfig::NOT_BUILT);
        #[cfg(feature = "schema-registry")]
        let problem = registry.url.is_empty().then_some("needs schema_registry.url");
        if let Some(problem) = problem {
            return wrong(setting, quoted(&format.to_string()), problem);
        }
    }
    Ok(())
}

fn check_url(url: &str) -> Check {
    let rest = url.strip_prefix("http://").or(url.strip_prefix("https://"));
    let Some(rest) = rest.filter(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace))
    else {
        let problem = "expected http(s)://host:port, with a path where there is one";
        return wrong("schema_registry.url", quoted(url), problem);
    };
    // Also after a /: it may belong to a password, which is not shown.
    if rest.contains('@') {
        let problem = "has credentials; use schema_registry.username and schema_registry.password";
        let (setting, value) = ("schema_registry.url".into(), Some("an address".into()));
        return Err(Mistake { setting, value, problem: problem.into() });
    }
    Ok(())
}
