//! Finds PostgreSQL's programs on this machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Error, ErrorKind, Result, cache::cache_folder};

/// Finds the folder with `initdb` and `postgres`: the first that has them of Debian's folders (newest
/// version first), the `PATH`, `pg_config --bindir` and the cache.
///
/// If `chosen` or `FACTLIB_PG_BIN` is set, no other folder is searched; with `FACTLIB_PG_VERSION`, only
/// those of that major version.
pub(super) fn find(chosen: Option<PathBuf>) -> Result<PathBuf> {
    let chosen = chosen.or_else(|| env::var_os("FACTLIB_PG_BIN").map(PathBuf::from));
    if let Some(folder) = chosen {
        return if has_server(&folder) {
            Ok(folder)
        } else {
            Err(Error::new(
                ErrorKind::Setup,
                format!("no initdb and postgres in {}", folder.display()),
            )
            .remedy("set FACTLIB_PG_BIN to the folder that has both, or unset it"))
        };
    }
    if let Ok(major) = env::var("FACTLIB_PG_VERSION") {
        return find_version(major.parse().map_err(|cause| {
            let what = format!("FACTLIB_PG_VERSION is {major}, and has to be a number such as 17");
            Error::new(ErrorKind::Setup, what).caused_by(cause)
        })?);
    }
    let on_path = env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>());
    newest_first("/usr/lib/postgresql".as_ref(), "")
        .into_iter()
        .chain(on_path.into_iter().flatten())
        .chain(pg_config())
        .chain(newest_first(&cache_folder(), "postgresql-"))
        .find(|folder| has_server(folder))
        .ok_or_else(|| {
            Error::new(ErrorKind::Setup, "PostgreSQL's programs initdb and postgres are missing")
                .remedy(
                    "install PostgreSQL 14 or later (Debian: apt-get install postgresql), or set \
                     FACTLIB_PG_BIN to its bin folder; in factlib's repository run: make bootstrap",
                )
        })
}

/// Finds the folder with the programs of one major version, in the cache or among Debian's.
pub(super) fn find_version(major: u32) -> Result<PathBuf> {
    let debian = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    let cached = newest_first(&cache_folder(), &format!("postgresql-{major}."));
    cached.into_iter().chain([debian]).find(|folder| has_server(folder)).ok_or_else(|| {
        let what = format!("PostgreSQL {major} is missing");
        Error::new(ErrorKind::Setup, what).remedy(format!(
            "install it (Debian: apt-get install postgresql-{major}), or give the builder its bin \
             folder with version_dir; in factlib's repository run: scripts/bootstrap --tests"
        ))
    })
}

/// Returns the installation that contains the folder `bin`, if it is in the cache.
pub(super) fn cached_installation(bin: &Path) -> Option<&Path> {
    bin.parent().filter(|installation| installation.starts_with(cache_folder()))
}

fn has_server(folder: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|program| folder.join(program).is_file())
}

/// Returns the folders `<parent>/<prefix><version>/bin`, newest version first.
fn newest_first(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?.split('.').next()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, folder)| folder).collect()
}

fn pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok().map(|folder| PathBuf::from(folder.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_versions_come_first() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["9", "17", "14", "lost+found"] {
            fs::create_dir_all(parent.path().join(name).join("bin")).unwrap();
        }
        let found = newest_first(parent.path(), "");
        let expected = ["17", "14", "9"].map(|name| parent.path().join(name).join("bin"));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_chosen_folder_without_a_server_is_an_error() {
        let empty = tempfile::tempdir().unwrap();
        let error = find(Some(empty.path().to_owned())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setup);
        assert!(error.advice().unwrap().contains("FACTLIB_PG_BIN"));
    }
}
