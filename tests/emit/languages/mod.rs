//! Runs the code of the pages in Java, Python, Go and JavaScript, with each language's own driver.
//!
//! A block of a page is put into a small program (`programs`), so that a page can't say what does not
//! run. `scripts/bootstrap --tests` fetches the drivers of the languages that this machine has. A
//! language that it lacks is left out, and the test says so, also when it passes.

mod emit;
mod inbox;
mod programs;

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Stdio,
};

use tempfile::TempDir;
use tokio::{process::Command, time::timeout};

use crate::support::{bed::LIMIT, repository::read};

/// A language, with a driver for PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Java,
    Python,
    Go,
    JavaScript,
}

/// What a program needs to run.
struct Runtime {
    /// Programs that have to be there.
    programs: &'static [&'static str],
    /// Folder of its drivers in the cache.
    drivers: &'static str,
}

impl Language {
    /// The language of a block, as the page names it.
    fn of(block: &str) -> Self {
        match block {
            "java" => Language::Java,
            "python" => Language::Python,
            "go" => Language::Go,
            "js" => Language::JavaScript,
            other => panic!("no program for {other}"),
        }
    }

    fn runtime(self) -> Runtime {
        let (programs, drivers): (&[&str], _) = match self {
            Language::Java => (&["java", "javac", "mvn"], "drivers-java-1"),
            Language::Python => (&["python3", "pip3"], "drivers-python-1"),
            Language::Go => (&["go"], "drivers-go-1"),
            Language::JavaScript => (&["node", "npm"], "drivers-node-1"),
        };
        Runtime { programs, drivers }
    }

    /// The folder of the drivers; none if this machine lacks the language.
    fn drivers(self) -> Option<PathBuf> {
        let Runtime { programs, drivers } = self.runtime();
        let missing: Vec<_> = programs.iter().filter(|program| !is_there(program)).collect();
        if !missing.is_empty() {
            // Not by eprintln!, which nobody sees of a test that passes.
            let _ =
                writeln!(io::stderr(), "NOT RUN: {self:?}, because this machine lacks {missing:?}");
            return None;
        }
        let folder = cache().join(drivers);
        assert!(
            folder.is_dir(),
            "{} is missing: scripts/bootstrap --tests gets it",
            folder.display()
        );
        Some(folder)
    }

    /// Runs a program on the database with this URL; returns false if this machine lacks the
    /// language.
    async fn run(self, program: &str, url: &str) -> bool {
        let Some(drivers) = self.drivers() else { return false };
        let folder = TempDir::new().expect("a folder");
        let mut command = self.command(&drivers, folder.path(), program);
        let url = match (self, url.split_once("postgres@")) {
            (Language::Java, Some((_, place))) => {
                format!("jdbc:postgresql://{place}?user=postgres")
            }
            _ => url.to_owned(),
        };
        command.env("DATABASE", url).current_dir(folder.path());
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(LIMIT, command.output()).await.expect("in time").expect("it starts");
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{self:?}: {}\n{program}", said.concat());
        true
    }

    /// Writes the program into the folder, and returns the command that runs it.
    fn command(self, drivers: &Path, folder: &Path, program: &str) -> Command {
        let write = |name: &str| {
            let path = folder.join(name);
            fs::write(&path, program).expect("written");
            path
        };
        match self {
            Language::Java => {
                let path = format!("{}/libs/*", drivers.display());
                let mut command = Command::new("java");
                command.args(["-XX:TieredStopAtLevel=1", "-cp", &path]).arg(write("Program.java"));
                command
            }
            Language::Python => {
                let mut command = Command::new("python3");
                command.arg(write("program.py")).env("PYTHONPATH", drivers);
                command
            }
            Language::Go => {
                write("main.go");
                for name in ["go.mod", "go.sum"] {
                    fs::copy(drivers.join(name), folder.join(name)).expect("copied");
                }
                let mut command = Command::new("go");
                command.args(["run", "-mod=mod", "."]).env("GOPROXY", "off").env("GOWORK", "off");
                command.env("GOMODCACHE", drivers.join("modules")).env("GOTOOLCHAIN", "local");
                command
            }
            Language::JavaScript => {
                let mut command = Command::new("node");
                command.arg(write("program.js")).env("NODE_PATH", drivers.join("node_modules"));
                command
            }
        }
    }
}

/// The blocks of a page that a file of this folder runs, with their languages.
fn blocks(page: &str, file: &str) -> Vec<(Language, String)> {
    let text = read(page);
    let marker = format!("<!-- run by: tests/emit/languages/{file} -->\n```");
    let block = |marked: &str| {
        let (language, text) = marked.split_once('\n').expect("a language");
        let (block, _) = text.split_once("\n```").expect("an end");
        (Language::of(language), block.to_owned())
    };
    text.split(&marker).skip(1).map(block).collect()
}

fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The folder into which `scripts/bootstrap` fetches.
fn cache() -> PathBuf {
    let given = env::var_os("FACTLIB_CACHE").map(PathBuf::from);
    given.unwrap_or_else(|| env::home_dir().unwrap_or_default().join(".cache/factlib"))
}
