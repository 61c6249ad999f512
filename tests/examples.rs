//! Every file of `buildspec-examples` is parsed, and its commands are run as that CI runs them: under its variables, in a
//! shell, with an empty daemon before each run.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use saphyr::{LoadableYamlNode, Yaml};

use support::ecr_fake::{EcrFake, HOST};
use support::engine::{D28, Engine, skopeo};
use support::machine::{Machine, Run};
use support::parts::{part, unique};
use support::s3::{BUCKET, S3Server};

const COMMIT: &str = "2f1c0a5e8d7b4936a1f0c2e4d6b8a09172635445";

/// What a CI does with a file of its own.
struct Ci {
    file: &'static str,
    read: fn(&Yaml) -> Job,
    shell: &'static str,
    /// Whether it is one line of hakobi's.
    one_line: bool,
    /// What it sets for a build of a branch, and of a pull request.
    branch: &'static [(&'static str, &'static str)],
    pull_request: Option<&'static [(&'static str, &'static str)]>,
}

/// An example as it is run.
struct Job {
    variables: Vec<(String, String)>,
    commands: Vec<String>,
    /// Whether the CI carries hakobi's directory.
    carries: bool,
}

const fn buildspec(file: &'static str, one_line: bool) -> Ci {
    Ci {
        file,
        read: codebuild,
        shell: "sh",
        one_line,
        branch: &[
            ("CODEBUILD_BUILD_ID", "app:5d9f6d1c-6a52-4b0e-9b7f-0f6f1b6f7a11"),
            ("CODEBUILD_RESOLVED_SOURCE_VERSION", COMMIT),
            ("CODEBUILD_SOURCE_VERSION", COMMIT),
            ("CODEBUILD_WEBHOOK_TRIGGER", "branch/main"),
            ("CODEBUILD_WEBHOOK_EVENT", "PUSH"),
            ("CODEBUILD_WEBHOOK_HEAD_REF", "refs/heads/main"),
            ("CODEBUILD_INITIATOR", "GitHub-Hookshot/abc"),
            ("AWS_REGION", "eu-west-1"),
        ],
        pull_request: None,
    }
}

const ALL: &[Ci] = &[
    buildspec("buildspec.yml", true),
    buildspec("buildspec-latest.yml", true),
    buildspec("buildspec-local-cache.yml", true),
    buildspec("buildspec-separate-steps.yml", false),
    Ci {
        file: ".travis.yml",
        read: travis,
        shell: "bash",
        one_line: true,
        branch: &[
            ("CI", "true"),
            ("TRAVIS", "true"),
            ("TRAVIS_BRANCH", "main"),
            ("TRAVIS_COMMIT", COMMIT),
            ("TRAVIS_PULL_REQUEST", "false"),
            ("TRAVIS_PULL_REQUEST_SHA", ""),
            ("TRAVIS_SECURE_ENV_VARS", "true"),
        ],
        pull_request: Some(&[
            ("CI", "true"),
            ("TRAVIS", "true"),
            ("TRAVIS_BRANCH", "main"),
            ("TRAVIS_COMMIT", "00000000000000000000000000000000000000aa"),
            ("TRAVIS_PULL_REQUEST", "7"),
            ("TRAVIS_PULL_REQUEST_SHA", COMMIT),
            ("TRAVIS_SECURE_ENV_VARS", "false"),
        ]),
    },
];

#[test]
fn every_example_is_tried() {
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || ALL.iter().any(|ci| ci.file == name), "no test runs {name}");
    }
}

#[test]
fn an_example_is_one_command() {
    for ci in ALL.iter().filter(|ci| ci.one_line) {
        let job = job(ci);
        assert_eq!(job.commands.len(), 1, "{}", ci.file);
        assert!(job.commands[0].starts_with("hakobi build "), "{}: {}", ci.file, job.commands[0]);
    }
}

#[test]
fn every_example_pushes_and_the_next_run_uses_it() {
    let engine = Engine::lock(D28);
    for ci in ALL {
        let repository = format!("{}/{}", part("HAKOBI_TEST_REGISTRY"), unique("example"));
        let (server, kept) = (S3Server::start(), tempfile::tempdir().unwrap());
        for again in [false, true] {
            engine.wipe();
            let machine = machine(&engine).logged_in();
            let machine = server.variables().iter().fold(machine, |machine, (name, value)| machine.set(name, value));
            // What the CI carries from run to run.
            let (carried, cache) = (kept.path().join("hakobi"), machine.home().join(".cache/hakobi"));
            fs::create_dir_all(cache.parent().unwrap()).unwrap();
            if again && job(ci).carries {
                fs::rename(&carried, &cache).unwrap();
            }
            run(&machine, ci, &repository, ci.branch);
            assert_eq!(cache.exists(), job(ci).carries, "{}", ci.file);
            if job(ci).carries {
                fs::rename(&cache, &carried).unwrap();
            }
            let report = machine.report("report.json");
            assert_eq!(report["outcome"], "success", "{}", ci.file);
            let tags = if ci.one_line { &["latest", COMMIT][..] } else { &["latest"] };
            for tag in tags {
                skopeo(&["inspect", "--raw", &format!("docker://{repository}:{tag}")]);
            }
            if again {
                assert_eq!(report["layers"]["pushed"], 0, "{}: {report}", ci.file);
            }
        }
    }
}

/// With the ECR name that stands in the example. The daemon cannot reach that name here, so this is about the push.
#[tokio::test(flavor = "multi_thread")]
async fn every_example_pushes_to_ecr() {
    let engine = Engine::lock(D28);
    // `docker build` by itself cannot look at a registry that is not there.
    for ci in ALL.iter().filter(|ci| ci.one_line) {
        let ecr = EcrFake::start().await;
        let (_, uri) = job(ci).variables.into_iter().find(|(name, _)| name == "REPOSITORY_URI").unwrap();
        let path = uri.strip_prefix(&format!("{HOST}/")).unwrap_or_else(|| panic!("{}: {uri} is not in {HOST}", ci.file));
        ecr.add(path, false);
        engine.wipe();
        let machine = ecr.environment().iter().fold(machine(&engine), |machine, (name, value)| machine.set(name, value));
        run(&machine, ci, &uri, ci.branch);
        let tags = &machine.report("report.json")["images"][0]["tags"];
        for tag in ["latest", COMMIT] {
            let pushed =
                tags.as_array().unwrap().iter().any(|entry| entry["ref"] == format!("{uri}:{tag}") && entry["pushed"] == true);
            assert!(pushed, "{}: {tag} in {tags}", ci.file);
        }
        assert!(ecr.logins() > 0, "{}: signed in by ECR's own API", ci.file);
        let asked = ecr.calls().iter().any(|call| call == "BatchCheckLayerAvailability");
        assert!(asked, "{}: layers looked for by ECR's own API: {:?}", ci.file, ecr.calls());
    }
}

#[test]
fn a_pull_request_pushes_nothing() {
    let engine = Engine::lock(D28);
    for ci in ALL {
        let Some(variables) = ci.pull_request else { continue };
        engine.wipe();
        // A fork's: no credentials for the registry either.
        let machine = machine(&engine);
        let path = unique("example");
        let repository = format!("{}/{path}", part("HAKOBI_TEST_REGISTRY_OPEN"));
        run(&machine, ci, &repository, variables);
        engine.docker(&["image", "inspect", &format!("{repository}:latest")]);
        let tags = Run::of(
            std::process::Command::new(part("HAKOBI_TEST_SKOPEO")).args(["list-tags", &format!("docker://{repository}")]),
        );
        assert_ne!(tags.code, 0, "{}: pushed {}", ci.file, tags.stdout);
    }
}

/// A checkout of a small project of two stages.
fn machine(engine: &Engine) -> Machine {
    // The tests' engines have no bridge.
    let machine = Machine::with(&engine.host()).set("HAKOBI_NETWORK", "host").set("HAKOBI_REPORT", "report.json");
    let base = part("HAKOBI_TEST_REGISTRY_OPEN");
    machine
        .write("Dockerfile", &format!("FROM {base}/base/busybox AS made\nRUN date +%N >/made\nFROM {base}/base/busybox\nCOPY --from=made /made /\nCOPY app /app\n"))
        .write("app/main", "echo app\n");
    machine
}

fn run(machine: &Machine, ci: &Ci, repository: &str, variables: &[(&str, &str)]) {
    let job = job(ci);
    // The tests' own docker; its engines have no bridge.
    let docker = part("HAKOBI_TEST_DOCKER_CLI");
    for command in &job.commands {
        let command = command.replace("docker build ", &format!("{docker} build --network host "));
        // A project's own variable goes before the file's.
        let given = job
            .variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| !matches!(*name, "REPOSITORY_URI" | "CACHE_BUCKET"));
        Run::of(
            machine
                .command(ci.shell)
                .args(["-c", &command])
                .envs(variables.iter().copied())
                .envs(given)
                .env("CACHE_BUCKET", BUCKET)
                .env("REPOSITORY_URI", repository),
        )
        .exits(0);
    }
}

fn job(ci: &Ci) -> Job {
    let text = fs::read_to_string(folder().join(ci.file)).unwrap();
    let documents = Yaml::load_from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", ci.file));
    let job = (ci.read)(&documents[0]);
    let repository = job.variables.iter().find(|(name, _)| name == "REPOSITORY_URI");
    assert!(repository.is_some_and(|(_, value)| value.contains(".dkr.ecr.")), "{}: no REPOSITORY_URI", ci.file);
    job
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("buildspec-examples")
}

/// <https://docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html>
fn codebuild(file: &Yaml) -> Job {
    keys(file, &["version", "env", "phases", "cache"]);
    assert_eq!(file["version"].as_floating_point(), Some(0.2));
    let variables = file["env"]["variables"].as_mapping().unwrap();
    let variables = variables.iter().map(|(name, value)| (text(name), text(value))).collect();
    keys(&file["phases"], &["install", "pre_build", "build", "post_build"]);
    let phases = file["phases"].as_mapping().unwrap();
    let carries = file.as_mapping().unwrap().keys().any(|key| text(key) == "cache");
    if carries {
        assert_eq!(list(&file["cache"]["paths"]), ["/root/.cache/hakobi/**/*"]);
    }
    Job { variables, commands: phases.values().flat_map(|phase| list(&phase["commands"])).collect(), carries }
}

/// <https://config.travis-ci.com>
fn travis(file: &Yaml) -> Job {
    keys(file, &["os", "dist", "language", "services", "env", "branches", "cache", "script"]);
    assert_eq!(list(&file["cache"]["directories"]), ["$HOME/.cache/hakobi"]);
    let pair = |text: String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
    let variables = list(&file["env"]["global"]).into_iter().map(pair).collect();
    Job { variables, commands: list(&file["script"]), carries: true }
}

/// A mistyped key would be silently without effect.
fn keys(mapping: &Yaml, known: &[&str]) {
    for key in mapping.as_mapping().unwrap().keys() {
        assert!(known.contains(&text(key).as_str()), "{key:?} is none of {known:?}");
    }
}

/// A sequence of texts, or one text by itself.
fn list(value: &Yaml) -> Vec<String> {
    value.as_sequence().map_or_else(|| vec![text(value)], |values| values.iter().map(text).collect())
}

fn text(value: &Yaml) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value:?}")).to_owned()
}
