//! Tests the real binary against Amazon ECR's own features: login, missing repositories, immutable tags.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::ecr_fake::{EcrFake, HOST};
use support::engine::{D28, Engine};
use support::machine::{Machine, Run};
use support::parts::unique;

fn machine(engine: &Engine, ecr: &EcrFake) -> Machine {
    let machine = ecr.environment().iter().fold(Machine::with(&engine.host()), |machine, (name, value)| machine.set(name, value));
    machine.write("Dockerfile", "FROM scratch\nCOPY file /file\n").write("file", "one\n");
    machine
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_repository_is_named_and_made_only_when_asked_for() {
    let (engine, ecr) = (Engine::lock(D28), EcrFake::start().await);
    let machine = machine(&engine, &ecr);
    let path = unique("ecr");
    let tag = format!("{HOST}/{path}:1");
    let run = machine.hakobi(&["build", "-t", &tag, "--push", "."]).exits(3);
    assert!(run.stderr.contains("aws ecr create-repository") && run.stderr.contains(&path), "{}", run.stderr);
    assert!(!run.stderr.contains("COPY file"), "nothing was built: {}", run.stderr);
    machine.hakobi(&["build", "-t", &tag, "--push", "--create-repository", "."]).exits(0);
    assert!(ecr.repository(&path).is_some());
    assert!(ecr.logins() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_tag_takes_the_same_image_again_and_no_other() {
    let (engine, ecr) = (Engine::lock(D28), EcrFake::start().await);
    let machine = machine(&engine, &ecr);
    let path = unique("ecr-immutable");
    ecr.add(&path, true);
    let tag = format!("{HOST}/{path}:1");
    machine.hakobi(&["build", "-t", &tag, "--push", "."]).exits(0);
    machine.write("file", "two\n");
    let run = machine.hakobi(&["build", "-t", &tag, "--push", "."]).exits(3);
    assert!(run.stderr.contains("immutable") && run.stderr.contains(&tag), "{}", run.stderr);
    let run =
        machine.hakobi(&["build", "-t", &tag, "--push", "--if-tag-exists", "skip", "--report", "report.json", "."]).exits(0);
    assert!(run.stderr.contains("skipping "), "{}", run.stderr);
    assert_eq!(machine.report("report.json")["outcome"], "skipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_shown_is_not() {
    let (engine, ecr) = (Engine::lock(D28), EcrFake::start().await);
    let machine = machine(&engine, &ecr);
    ecr.deny("GetAuthorizationToken");
    let run = machine.hakobi(&["build", "-t", &format!("{HOST}/{}:1", unique("ecr-denied")), "--push", "."]).exits(3);
    assert!(run.stderr.contains("ecr:GetAuthorizationToken"), "{}", run.stderr);
    for (name, value) in ecr.environment() {
        assert!(!name.contains("SECRET") || !run.stderr.contains(&value), "{name} is shown");
    }
}

/// Docker calls a helper by its name, and writes the server to its standard input.
#[tokio::test(flavor = "multi_thread")]
async fn docker_signs_in_by_it() {
    let ecr = EcrFake::start().await;
    let machine = ecr.environment().iter().fold(Machine::without_daemon(), |machine, (name, value)| machine.set(name, value));
    let helper = machine.home().join("docker-credential-hakobi");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hakobi"), &helper).unwrap();
    machine.write("server", &format!("https://{HOST}\n"));
    let server = std::fs::File::open(machine.folder().join("server")).unwrap();
    let run = Run::of(machine.command(&helper).arg("get").stdin(server)).exits(0);
    let answer: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(answer["ServerURL"], format!("https://{HOST}"));
    assert_eq!(answer["Username"], "AWS");
    // These words, on standard output, are what docker takes for "none": it goes on without a login.
    machine.write("server", "https://registry.example.com");
    let server = std::fs::File::open(machine.folder().join("server")).unwrap();
    let run = Run::of(machine.command(&helper).arg("get").stdin(server)).exits(1);
    assert_eq!((&*run.stdout, &*run.stderr), ("credentials not found in native keychain\n", ""));
}

#[test]
fn without_a_daemon_the_answer_says_what_is_missing() {
    let machine = Machine::with("unix:///nowhere/docker.sock");
    machine.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /d\n");
    let run = machine.hakobi(&["build", "."]).exits(5);
    assert!(run.stderr.contains("/nowhere/docker.sock") && run.stderr.contains("hint:"), "{}", run.stderr);
}
