//! Every file of `src/`, held against the order.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{imports::imports, order::Order, read, root::Root};

/// Returns imports of modules to the right, and modules that have no place in the order.
pub fn violations(repository: &Path, lib: &str, order: &Order) -> Result<Vec<String>, String> {
    let root = Root::read(lib)?;
    let mut found: Vec<String> = root
        .modules
        .iter()
        .filter(|module| order.place(module).is_none())
        .map(|module| format!("src/lib.rs: module {module} has no place in the order"))
        .collect();
    for name in order.names().filter(|name| !root.modules.iter().any(|module| module == name)) {
        found.push(format!("src/lib.rs: the order names {name}, and there is no such module"));
    }
    let mut files = Vec::new();
    rust_files(&repository.join("src"), &mut files)?;
    let mut sources = Vec::new();
    let mut for_tests = BTreeSet::new();
    for path in files {
        let module = module_path(&path, &repository.join("src"));
        let Some(top) = module.first().cloned() else { continue };
        if order.place(&top).is_none() {
            continue;
        }
        let shown = path.strip_prefix(repository).unwrap_or(&path).display().to_string();
        let imports =
            imports(&read(&path)?, &module).map_err(|error| format!("{shown}: {error}"))?;
        for name in &imports.test_modules {
            for_tests.insert(module.iter().cloned().chain([name.clone()]).collect::<Vec<_>>());
        }
        sources.push((shown, module, top, imports.paths));
    }
    sources.retain(|(_, module, ..)| {
        !(1..=module.len()).any(|end| for_tests.contains(&module[..end]))
    });
    for (shown, _, top, paths) in sources {
        for (path, line) in paths {
            let Some(target) = root.module_of(&path) else { continue };
            let places = (order.place(&top), order.place(target));
            if let (Some(own), Some(other)) = places
                && other > own
            {
                found.push(format!(
                    "{shown}:{line}: {top} imports {} of {target}, which stands to its right",
                    path.join("::")
                ));
            }
        }
    }
    Ok(found)
}

/// The module that a file is, from the root; none for the root itself.
fn module_path(path: &Path, src: &Path) -> Vec<String> {
    let within = path.strip_prefix(src).unwrap_or(path).with_extension("");
    let mut names: Vec<String> =
        within.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| name == "mod") {
        names.pop();
    }
    if names == ["lib"] { Vec::new() } else { names }
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_module_of_its_path() {
        let of = |path: &str| module_path(Path::new(path), Path::new("src")).join("::");
        assert_eq!(of("src/lib.rs"), "");
        assert_eq!(of("src/lsn.rs"), "lsn");
        assert_eq!(of("src/kafka/mod.rs"), "kafka");
        assert_eq!(of("src/kafka/plain/mod.rs"), "kafka::plain");
        assert_eq!(of("src/kafka/plain/work.rs"), "kafka::plain::work");
    }
}
