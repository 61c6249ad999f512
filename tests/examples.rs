//! Parses every file of `buildspec-examples`, and runs its commands like its CI: with the CI's variables, in a shell, and with an
//! empty daemon before each run.

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
    read: fn(&str) -> Job,
    shell: &'static str,
    /// Whether it is one line of hakobi's.
    one_line: bool,
    /// What stands behind the repository's name in the images' names, and where they are built.
    images: &'static [&'static str],
    /// What it sets for a build of a branch, and of a pull request.
    branch: &'static [(&'static str, &'static str)],
    pull_request: Option<&'static [(&'static str, &'static str)]>,
}

/// An example as it is run.
struct Job {
    variables: Vec<(String, String)>,
    /// The commands that sign in to the registry, and those that build.
    logins: Vec<String>,
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
        images: &[""],
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

const fn github_file(file: &'static str) -> Ci {
    Ci {
        file,
        read: github,
        shell: "bash",
        one_line: true,
        images: &[""],
        branch: &[
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_EVENT_NAME", "push"),
            ("GITHUB_REF", "refs/heads/main"),
            ("GITHUB_REF_NAME", "main"),
            ("GITHUB_SHA", COMMIT),
        ],
        pull_request: Some(&[
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_EVENT_NAME", "pull_request"),
            ("GITHUB_REF", "refs/pull/7/merge"),
            ("GITHUB_REF_NAME", "7/merge"),
            ("GITHUB_BASE_REF", "main"),
            ("GITHUB_SHA", COMMIT),
        ]),
    }
}

const fn travis_file(file: &'static str) -> Ci {
    Ci {
        file,
        read: travis,
        shell: "bash",
        one_line: true,
        images: &[""],
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
    }
}

const ALL: &[Ci] = &[
    buildspec("buildspec.yml", true),
    buildspec("buildspec-latest.yml", true),
    buildspec("buildspec-lazy.yml", true),
    buildspec("buildspec-local-cache.yml", true),
    buildspec("buildspec-separate-steps.yml", false),
    Ci { images: &["/api", "/worker", "/web"], ..buildspec("monorepo.yml", false) },
    github_file("github-workflow.yml"),
    github_file("github-ghcr.yml"),
    Ci {
        file: "Jenkinsfile",
        read: jenkins,
        shell: "sh",
        one_line: true,
        images: &[""],
        branch: &[("JENKINS_URL", "https://jenkins.example.com/"), ("BRANCH_NAME", "main"), ("GIT_COMMIT", COMMIT)],
        pull_request: Some(&[
            ("JENKINS_URL", "https://jenkins.example.com/"),
            ("BRANCH_NAME", "PR-7"),
            ("CHANGE_ID", "7"),
            ("CHANGE_TARGET", "main"),
            ("GIT_COMMIT", COMMIT),
        ]),
    },
    travis_file(".travis.yml"),
    travis_file("travis-latest.yml"),
    Ci {
        file: ".gitlab-ci.yml",
        read: gitlab,
        shell: "sh",
        one_line: true,
        images: &[""],
        branch: &[
            ("GITLAB_CI", "true"),
            ("CI_COMMIT_BRANCH", "main"),
            ("CI_COMMIT_REF_NAME", "main"),
            ("CI_COMMIT_SHA", COMMIT),
            ("CI_DEFAULT_BRANCH", "main"),
        ],
        pull_request: Some(&[
            ("GITLAB_CI", "true"),
            ("CI_COMMIT_REF_NAME", "refs/merge-requests/7/head"),
            ("CI_COMMIT_SHA", COMMIT),
            ("CI_DEFAULT_BRANCH", "main"),
            ("CI_MERGE_REQUEST_IID", "7"),
            ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "main"),
        ]),
    },
];

#[test]
fn every_example_is_tried() {
    for entry in fs::read_dir(folder()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        // What is no CI's file is for AWS to read: cfn-lint and the like looked at it, as README.md there says.
        let is_for_aws = entry.path().is_dir() || matches!(&*name, "pipeline.yml" | "vpc-without-internet.yml");
        assert!(name == "README.md" || is_for_aws || ALL.iter().any(|ci| ci.file == name), "no test runs {name}");
    }
}

#[test]
fn an_example_is_one_command() {
    for ci in ALL.iter().filter(|ci| ci.one_line) {
        let job = job(ci);
        assert_eq!(job.commands.len(), 1, "{}", ci.file);
        assert!(job.logins.iter().all(|login| login.contains(" | docker login ")), "{}: {:?}", ci.file, job.logins);
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
            let machine = machine(&engine);
            // An example that signs in has no other login.
            let machine = if job(ci).logins.is_empty() { machine.logged_in() } else { machine };
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
            let tags = if ci.file == "buildspec-separate-steps.yml" { &["latest"][..] } else { &["latest", COMMIT] };
            for (image, tag) in ci.images.iter().flat_map(|image| tags.iter().map(move |tag| (image, tag))) {
                skopeo(&["inspect", "--raw", &format!("docker://{repository}{image}:{tag}")]);
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
    for ci in ALL.iter().filter(|ci| ci.one_line && job(ci).logins.is_empty()) {
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
        let machine = machine(&engine).set("AWS_EC2_METADATA_DISABLED", "true").set("AWS_REGION", "eu-west-1");
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

/// A cache beside the image: a pull request reads it, and writes nothing.
#[test]
fn a_pull_request_finds_what_main_saved_in_the_registry() {
    let engine = Engine::lock(D28);
    let is_beside = |ci: &&Ci| job(ci).commands.iter().any(|command| command.contains(" --cache-from "));
    let mut tried = 0;
    for ci in ALL.iter().filter(is_beside) {
        let Some(variables) = ci.pull_request else { continue };
        tried += 1;
        let repository = format!("{}/{}", part("HAKOBI_TEST_REGISTRY"), unique("example"));
        let [main, request] = [ci.branch, variables].map(|variables| {
            engine.wipe();
            let machine = machine(&engine).logged_in();
            run(&machine, ci, &repository, variables);
            let report = machine.report("report.json");
            let tags: serde_json::Value =
                serde_json::from_str(&skopeo(&["list-tags", &format!("docker://{repository}")])).unwrap();
            let manifest = |tag: &serde_json::Value| {
                let name = format!("docker://{repository}:{}", tag.as_str().unwrap());
                (name.clone(), skopeo(&["inspect", "--raw", &name]))
            };
            let manifests: Vec<_> = tags["Tags"].as_array().unwrap().iter().map(manifest).collect();
            (manifests, report)
        });
        let (before, (after, report)) = (main.0, request);
        assert_eq!(before.len(), 3, "{}: latest, the commit and the cache: {before:?}", ci.file);
        assert_eq!(report["tier"], "unchanged", "{}: {report}", ci.file);
        assert_eq!(before, after, "{}", ci.file);
    }
    assert!(tried >= 3, "{tried}");
}

/// A checkout of a small project of two stages.
fn machine(engine: &Engine) -> Machine {
    // The tests' engines have no bridge.
    let machine = Machine::with(&engine.host()).set("HAKOBI_NETWORK", "host").set("HAKOBI_REPORT", "report.json");
    let base = part("HAKOBI_TEST_REGISTRY_OPEN");
    let dockerfile = format!(
        "FROM {base}/base/busybox AS made\nRUN date +%N >/made\nFROM {base}/base/busybox\nCOPY --from=made /made /\nCOPY app /app\n"
    );
    for folder in ["", "api/", "worker/", "web/"] {
        machine.write(&format!("{folder}Dockerfile"), &dockerfile).write(&format!("{folder}app/main"), "echo app\n");
    }
    machine
}

fn run(machine: &Machine, ci: &Ci, repository: &str, variables: &[(&str, &str)]) {
    let job = job(ci);
    // The tests' own docker; its engines have no bridge.
    let docker = part("HAKOBI_TEST_DOCKER_CLI");
    let (host, _) = repository.split_once('/').unwrap();
    let (user, password) = (part("HAKOBI_TEST_REGISTRY_USER"), part("HAKOBI_TEST_REGISTRY_PASSWORD"));
    let login = |command: &String| command.replace("docker login ", &format!("{docker} login ")).replace("ghcr.io", host);
    for command in job.logins.iter().map(login).chain(job.commands.iter().cloned()) {
        let command = command.replace("docker build ", &format!("{docker} build --network host "));
        // A project's own variable goes before the file's, and the tests have daemons of their own.
        let given = job
            .variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| !matches!(*name, "REPOSITORY_URI" | "CACHE_BUCKET") && !name.starts_with("DOCKER_"));
        Run::of(
            machine
                .command(ci.shell)
                .args(["-c", &command])
                .envs(variables.iter().copied())
                .envs(given)
                .env("CACHE_BUCKET", BUCKET)
                .envs([("REPOSITORY_URI", repository), ("CI_REGISTRY_IMAGE", repository), ("CI_REGISTRY", host)])
                .envs([("GITHUB_ACTOR", &*user), ("TOKEN", &*password)])
                .envs([("CI_REGISTRY_USER", &*user), ("CI_REGISTRY_PASSWORD", &*password)]),
        )
        .exits(0);
    }
}

fn job(ci: &Ci) -> Job {
    let text = fs::read_to_string(folder().join(ci.file)).unwrap();
    let job = (ci.read)(&text);
    if ci.file != ".gitlab-ci.yml" {
        let repository = job.variables.iter().find(|(name, _)| name == "REPOSITORY_URI");
        let place = if job.logins.is_empty() { ".dkr.ecr." } else { "ghcr.io/" };
        assert!(repository.is_some_and(|(_, value)| value.contains(place)), "{}: no REPOSITORY_URI", ci.file);
    }
    job
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("buildspec-examples")
}

/// <https://docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html>
fn codebuild(file: &str) -> Job {
    let documents = yaml(file);
    let file = &documents[0];
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
    let commands = phases.values().flat_map(|phase| list(&phase["commands"])).collect();
    Job { variables, logins: Vec::new(), commands, carries }
}

/// <https://config.travis-ci.com>
fn travis(file: &str) -> Job {
    let documents = yaml(file);
    let file = &documents[0];
    keys(file, &["os", "dist", "language", "services", "env", "branches", "cache", "script"]);
    let carries = file.as_mapping().unwrap().keys().any(|key| text(key) == "cache");
    if carries {
        assert_eq!(list(&file["cache"]["directories"]), ["$HOME/.cache/hakobi"]);
    }
    let pair = |text: String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
    let variables = list(&file["env"]["global"]).into_iter().map(pair).collect();
    Job { variables, logins: Vec::new(), commands: list(&file["script"]), carries }
}

/// <https://docs.gitlab.com/ci/yaml/>
fn gitlab(file: &str) -> Job {
    let documents = yaml(file);
    let file = &documents[0];
    keys(file, &["image", "services", "variables", "workflow", "build"]);
    for rule in file["workflow"]["rules"].as_sequence().unwrap() {
        keys(rule, &["if"]);
    }
    let build = &file["build"];
    keys(build, &["timeout", "before_script", "script"]);
    let variables = file["variables"].as_mapping().unwrap().iter().map(|(name, value)| (text(name), text(value))).collect();
    Job { variables, logins: list(&build["before_script"]), commands: list(&build["script"]), carries: false }
}

/// <https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax>
fn github(file: &str) -> Job {
    let documents = yaml(file);
    let file = &documents[0];
    keys(file, &["name", "on", "permissions", "env", "jobs"]);
    let variables = file["env"].as_mapping().unwrap().iter().map(|(name, value)| (text(name), text(value))).collect();
    let steps = file["jobs"]["image"]["steps"].as_sequence().unwrap().iter();
    let runs = steps.filter(|step| step.as_mapping().unwrap().keys().any(|key| text(key) == "run"));
    let (logins, commands) = runs.map(|step| text(&step["run"])).partition(|command| command.contains("docker login"));
    Job { variables, logins, commands, carries: false }
}

/// The steps of the shell, and the names in `environment`: <https://www.jenkins.io/doc/book/pipeline/syntax/>
fn jenkins(file: &str) -> Job {
    let quoted = |line: &str| line.strip_prefix('\'').and_then(|line| line.strip_suffix('\'')).map(str::to_owned);
    let lines = || file.lines().map(str::trim);
    let commands = lines().filter_map(|line| quoted(line.strip_prefix("sh ")?)).collect();
    let variables = lines().filter_map(|line| {
        let (name, value) = line.split_once(" = ")?;
        Some((name.to_owned(), quoted(value)?))
    });
    Job { variables: variables.collect(), logins: Vec::new(), commands, carries: false }
}

fn yaml(file: &str) -> Vec<Yaml<'_>> {
    Yaml::load_from_str(file).unwrap()
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
