//! The Debian package: made of the binary under test, installed into a folder, run from there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::repository::read;

/// What a command prints; it has to succeed.
fn out(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}; scripts/bootstrap --tests installs what is missing")
    });
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The package, made of the binary that this test was built with.
fn package(folder: &Path) -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_factlib"));
    let target = binary.parent().and_then(Path::parent).expect("the target folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/package");
    out(Command::new(script).arg(folder).env("CARGO_TARGET_DIR", target).env("PROFILE", "dev"));
    let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
    let packages: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|of| of == "deb")).collect();
    let [package] = &packages[..] else { panic!("{packages:?}") };
    package.clone()
}

/// Installs it below `root`: as root in earnest, else by unpacking it.
fn install(package: &Path, root: &Path) {
    if nix::unistd::getuid().is_root() {
        let database = root.join("var/lib/dpkg");
        fs::create_dir_all(database.join("updates")).expect("a folder");
        fs::create_dir_all(database.join("info")).expect("a folder");
        fs::write(database.join("status"), "").expect("written");
        // What it depends on is outside of the folder.
        out(Command::new("dpkg")
            .arg("--root")
            .arg(root)
            .args(["--force-depends", "--install"])
            .arg(package));
        let status = fs::read_to_string(database.join("status")).expect("dpkg's status");
        assert!(status.contains("Package: factlib\nStatus: install ok installed"), "{status}");
    } else {
        out(Command::new("dpkg-deb").arg("--extract").arg(package).arg(root));
    }
}

#[test]
fn it_installs_and_runs_with_all_that_belongs_to_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("root");
    fs::create_dir(&root).expect("a folder");
    let package = package(folder.path());
    install(&package, &root);
    let binary = root.join("usr/bin/factlib");
    let run = |args: &[&str]| {
        out(Command::new(&binary).args(args).env_clear().current_dir(folder.path()))
    };
    let version = run(&["--version"]);
    assert!(version.starts_with(concat!("factlib ", env!("CARGO_PKG_VERSION"), "\n")), "{version}");

    // The unit starts what was installed, with a configuration that loads.
    let unit = fs::read_to_string(root.join("usr/lib/systemd/system/factlib.service"));
    let unit =
        unit.or_else(|_| fs::read_to_string(root.join("lib/systemd/system/factlib.service")));
    let unit = unit.expect("a unit");
    assert_eq!(unit, read("packaging/factlib.service"));
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let ["/usr/bin/factlib", "run", "--config", path] = start.split(' ').collect::<Vec<_>>()[..]
    else {
        panic!("{start}")
    };
    let configuration = root.join(path.trim_start_matches('/'));
    let shown = run(&["config", "--config", configuration.to_str().expect("UTF-8")]);
    assert!(shown.contains("kafka.brokers"), "{shown}");
    let control = out(Command::new("dpkg-deb").arg("--info").arg(&package).arg("conffiles"));
    assert_eq!(control.trim(), path);
    // The unit's user is nobody in particular.
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(&configuration).expect("installed").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);

    let manual = fs::read_to_string(root.join("usr/share/man/man1/factlib-slot-drop.1"));
    assert!(manual.expect("a manual page").contains("factlib slot drop"), "of its subcommands too");
    for (file, sign) in [
        ("usr/share/man/man1/factlib.1", ".TH factlib 1"),
        ("usr/share/bash-completion/completions/factlib", "complete -F"),
        ("usr/share/zsh/vendor-completions/_factlib", "#compdef factlib"),
        ("usr/share/fish/vendor_completions.d/factlib.fish", "complete -c factlib"),
        ("usr/share/doc/factlib/alerts.yaml", "FactlibStuck"),
        ("usr/share/doc/factlib/grafana-dashboard.json", "factlib_lag_seconds"),
        ("usr/share/doc/factlib/runbook.md", "### FactlibStuck"),
        ("usr/share/doc/factlib/errors.md", "`PositionLost`"),
        ("usr/share/doc/factlib/copyright", "MIT"),
    ] {
        let text = fs::read_to_string(root.join(file)).unwrap_or_else(|_| panic!("no {file}"));
        assert!(text.contains(sign), "{file}");
    }
}
