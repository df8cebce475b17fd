//! The Dockerfile: its stages, its user, and a health check that the command line takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    process::Command,
};

use crate::support::repository::read;

/// An instruction, and the rest of its line.
type Instruction = (String, String);

/// The instructions before the first stage, and those of each stage by its name.
fn stages() -> (Vec<Instruction>, Vec<(String, Vec<Instruction>)>) {
    let text = read("packaging/Dockerfile");
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let text = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let (mut before, mut stages) = (Vec::new(), Vec::<(String, Vec<Instruction>)>::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, rest) = line.split_once(' ').expect("an instruction and more");
        if name == "FROM" {
            let stage = rest.split_once(" AS ").map_or("", |(_, stage)| stage);
            stages.push((stage.to_owned(), Vec::new()));
        }
        let open = stages.last_mut().map_or(&mut before, |(_, instructions)| instructions);
        open.push((name.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    (before, stages)
}

fn of<'a>(stage: &'a [Instruction], name: &str) -> Vec<&'a str> {
    let found = stage.iter().filter(|(of, _)| of == name);
    found.map(|(_, rest)| rest.as_str()).collect()
}

/// The words of an instruction in JSON's form, which starts no shell: the image has none.
fn list(json: &str) -> Vec<String> {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

/// The pairs that the image sets.
pub(super) fn environment() -> BTreeMap<String, String> {
    let (_, stages) = stages();
    let (_, last) = stages.last().expect("a stage");
    let pairs = of(last, "ENV").into_iter().flat_map(str::split_whitespace);
    pairs.filter_map(|pair| pair.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect()
}

#[test]
fn both_stages_of_files_have_what_the_image_starts() {
    let (before, stages) = stages();
    let names: Vec<&str> = stages.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["compiled", "given", "files", ""]);
    let [(_, compiled), (_, given), (_, files), (_, image)] = &stages[..] else { panic!() };
    assert_eq!(of(&before, "ARG"), ["FILES=compiled"], "one of the stages");
    assert_eq!(of(files, "FROM"), ["${FILES} AS files"]);
    assert_eq!(of(image, "FROM"), ["scratch"], "nothing comes into the image but the files");
    assert_eq!(of(image, "COPY"), ["--from=files /files/ /"]);

    let entry = &list(of(image, "ENTRYPOINT")[0])[0];
    let authorities = "/etc/ssl/certs/ca-certificates.crt";
    let run = of(compiled, "RUN").join("\n");
    for file in [entry.as_str(), authorities] {
        assert!(run.contains(&format!(" /files{file}")), "compiled lacks {file}");
        let copied = of(given, "COPY").iter().any(|copy| copy.ends_with(&format!(" /files{file}")));
        assert!(copied, "given lacks {file}");
    }
    assert!(run.contains(" --release --locked ") && run.contains(" --bin factlib"), "{run}");
    assert!(run.contains("-unknown-linux-musl"), "static: the image has no library of C");
}

#[test]
fn it_runs_as_nobody_and_has_only_what_is_needed() {
    let (_, stages) = stages();
    let (_, image) = stages.last().expect("a stage");
    let names: BTreeSet<&str> = image.iter().map(|(name, _)| name.as_str()).collect();
    let known = ["FROM", "COPY", "ENV", "EXPOSE", "USER", "HEALTHCHECK", "STOPSIGNAL"];
    assert_eq!(names, known.into_iter().chain(["ENTRYPOINT", "CMD"]).collect());
    let user: Vec<u32> = of(image, "USER")[0]
        .split(':')
        .map(|id| id.parse().expect("a number: Kubernetes' runAsNonRoot looks at it"))
        .collect();
    assert!(user.len() == 2 && !user.contains(&0), "{user:?}");
    assert_eq!(list(of(image, "CMD")[0]), ["run"]);
    let environment = environment();
    assert_eq!(of(image, "EXPOSE"), [environment["FACTLIB_HTTP__HEALTH_PORT"].as_str()]);
    assert_eq!(environment["FACTLIB_HTTP__ADDRESS"], "0.0.0.0");
}

#[test]
fn its_health_check_asks_the_relay_in_the_container() {
    let (_, stages) = stages();
    let (_, image) = stages.last().expect("a stage");
    let (options, command) = of(image, "HEALTHCHECK")[0].split_once(" CMD ").expect("a command");
    let command = list(command);
    assert_eq!(command[0], list(of(image, "ENTRYPOINT")[0])[0]);
    let seconds = |name: &str| -> u64 {
        let option = options.split(' ').find_map(|option| option.strip_prefix(name));
        option.expect(name).trim_end_matches('s').parse().expect("seconds")
    };
    // The command itself waits five.
    assert!(seconds("--timeout=") > 5 && seconds("--interval=") > seconds("--timeout="));

    // As in a container whose relay is not there: nothing listens at the port.
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("bound").port().to_string();
    drop(free);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut check = Command::new(env!("CARGO_BIN_EXE_factlib"));
    check.args(&command[1..]).env_clear().envs(environment()).current_dir(folder.path());
    let output = check.env("FACTLIB_HTTP__HEALTH_PORT", &port).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    let expected = format!("factlib: no relay answers at http://127.0.0.1:{port}/healthz");
    assert!(error.starts_with(&expected), "{error}");
}
