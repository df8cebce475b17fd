//! Reads connection service files, which have named sets of parameters, as libpq does
//! (`libpq-pgservice.html`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::connection_string::Parameters;
use crate::{Error, ErrorKind, Result};

/// Folders to search for the system's file if `PGSYSCONFDIR` is not set. libpq's own folder is fixed
/// at build time; these are those of distributions.
const SYSTEM_FOLDERS: [&str; 3] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/etc"];

/// Returns the parameters of `service` from `file`, else the user's file, else the system's.
pub(super) fn parameters(
    service: &str,
    file: Option<String>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Parameters> {
    let mut candidates = Vec::new();
    match file {
        Some(path) => {
            let path = PathBuf::from(path);
            // A file that is named has to exist.
            if !path.exists() {
                let message =
                    format!("PostgreSQL's connection service file {} is missing", path.display());
                return Err(Error::new(ErrorKind::Config, message)
                    .with_remedy("correct servicefile or PGSERVICEFILE"));
            }
            candidates.push(path);
        }
        None => {
            candidates.extend(env("HOME").map(|home| Path::new(&home).join(".pg_service.conf")))
        }
    }
    match env("PGSYSCONFDIR") {
        Some(folder) => candidates.push(Path::new(&folder).join("pg_service.conf")),
        None => {
            let system = SYSTEM_FOLDERS.iter().map(Path::new);
            candidates.extend(system.map(|folder| folder.join("pg_service.conf")));
        }
    }
    for path in candidates.iter().filter(|path| path.exists()) {
        let text = fs::read_to_string(path).map_err(|error| {
            let message =
                format!("cannot read PostgreSQL's connection service file {}", path.display());
            Error::new(ErrorKind::Config, message).caused_by(error)
        })?;
        if let Some(found) =
            find(service, &text).map_err(|(line, reason)| mistake(path, line, reason))?
        {
            return Ok(found);
        }
    }
    let searched = candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    let message = format!("service {service} is in no connection service file of PostgreSQL");
    Err(Error::new(ErrorKind::Config, message).with_remedy(format!(
        "define it in {}, or leave service and PGSERVICE out",
        searched.join(" or ")
    )))
}

fn mistake(path: &Path, line: usize, reason: &str) -> Error {
    let path = path.display();
    let message = format!("line {line} of PostgreSQL's connection service file {path} {reason}");
    Error::new(ErrorKind::Config, message)
}

/// Finds a service in a file's text; none if it is not there. Errors name the line, but do not quote
/// it, because it may contain a password.
fn find(service: &str, text: &str) -> Result<Option<Parameters>, (usize, &'static str)> {
    let mut found: Option<Parameters> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            if found.is_some() {
                break;
            }
            found = (name == service).then(Parameters::new);
            continue;
        }
        let Some(parameters) = &mut found else { continue };
        if line.starts_with("ldap") {
            return Err((number, "asks LDAP, which is not supported"));
        }
        let (keyword, value) = line.split_once('=').ok_or((number, "has no ="))?;
        if matches!(keyword, "service" | "servicefile") {
            return Err((number, "names a service inside of a service"));
        }
        parameters.push((keyword.to_owned(), value.to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# ours
[other]
host=nowhere

[shop]
host=db.example
 port=5433
password=a=b c
[after]
secret
";

    #[test]
    fn a_service_has_the_lines_below_its_name() {
        let pairs = |service: &str| find(service, TEXT);
        let shop = [("host", "db.example"), ("port", "5433"), ("password", "a=b c")];
        let shop = shop.map(|(keyword, value)| (keyword.to_owned(), value.to_owned()));
        assert_eq!(pairs("shop"), Ok(Some(shop.to_vec())));
        assert_eq!(pairs("nobody"), Ok(None));
        assert_eq!(pairs("after"), Err((10, "has no =")));
        let nested = find("a", "[a]\nservice=b\n");
        assert_eq!(nested, Err((2, "names a service inside of a service")));
        let ldap = find("a", "[a]\nldap://h/b?c\n");
        assert_eq!(ldap, Err((2, "asks LDAP, which is not supported")));
    }

    #[test]
    fn the_first_file_that_has_it_counts_and_a_mistake_is_named_by_its_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("written");
            path.display().to_string()
        };
        write(".pg_service.conf", "[shop]\nhost=home\n");
        write("pg_service.conf", "[shop]\nhost=system\n[other]\nhost=system\n[bad]\nsecret\n");
        let at = folder.path().display().to_string();
        let env = |name: &str| matches!(name, "HOME" | "PGSYSCONFDIR").then(|| at.clone());
        let host = |service: &str, file: Option<String>| {
            let found = parameters(service, file, &env);
            found.map(|all| all[0].1.clone()).map_err(|error| error.to_string())
        };
        assert_eq!(host("shop", None).as_deref(), Ok("home"));
        assert_eq!(host("other", None).as_deref(), Ok("system"));
        let named = write("mine.conf", "[mine]\nhost=mine\n");
        assert_eq!(host("mine", Some(named.clone())).as_deref(), Ok("mine"));
        assert_eq!(host("other", Some(named)).as_deref(), Ok("system"));
        let bad = host("bad", None).expect_err("refused");
        let line = format!("line 6 of PostgreSQL's connection service file {at}/pg_service.conf");
        assert_eq!(bad, format!("{line} has no ="));
        let none = host("none", None).expect_err("refused");
        assert!(none.starts_with("service none is in no connection service file"), "{none}");
        let missing = host("shop", Some("/nowhere".into())).expect_err("refused");
        let text = "PostgreSQL's connection service file /nowhere is missing (correct servicefile \
                    or PGSERVICEFILE)";
        assert_eq!(missing, text);
    }
}
