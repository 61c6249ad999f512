//! `hakobi doctor`: each thing seen right, and seen wrong.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::engine::{D28, Engine};
use support::machine::{Machine, Run};
use support::parts::{part, unique};
use support::s3::{BUCKET, S3Server};

/// The line of one thing, by its name.
fn line<'a>(text: &'a str, what: &str) -> &'a str {
    text.lines().find(|line| line.split_whitespace().nth(1) == Some(what)).unwrap_or_else(|| panic!("no {what} in:\n{text}"))
}

#[test]
fn all_is_well() {
    let server = S3Server::start();
    let engine = Engine::lock(D28);
    let machine =
        server.variables().iter().fold(Machine::with(&engine.host()), |machine, (name, value)| machine.set(name, value));
    let machine = machine.logged_in().set("TRAVIS", "true").set("TRAVIS_BRANCH", "dev").set("NO_PROXY", "localhost");
    let tag = format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY"), unique("doctor"));
    let cache = format!("s3://{BUCKET}/doctor");
    let told = machine.hakobi(&["doctor", "-t", &tag, "--cache", &cache]).exits(0).stdout;
    for what in ["ci", "daemon", "transport", "registry", "cache", "clock", "room", "proxies"] {
        assert!(line(&told, what).starts_with("ok "), "{told}");
    }
    assert!(line(&told, "ci").contains("travis, cache scope dev, reads main, master"), "{told}");
    assert!(line(&told, "daemon").contains("28.5"), "{told}");
    let left = walk(&server.objects());
    assert!(left.is_empty(), "nothing stays: {left:?}");
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn what_is_wrong_has_a_way_to_mend_it() {
    let machine = Machine::with("unix:///nowhere/docker.sock");
    let run = machine.hakobi(&["doctor", "--cache", "../cache"]).exits(5);
    assert!(line(&run.stdout, "daemon").starts_with("WRONG"), "{}", run.stdout);
    assert!(run.stdout.contains("privileged mode") || run.stdout.contains("DOCKER_HOST"), "{}", run.stdout);
    assert!(line(&run.stdout, "registry").starts_with('-') && line(&run.stdout, "cache").starts_with("ok"), "{}", run.stdout);

    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    let tag = format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY"), unique("doctor"));
    let run = machine.hakobi(&["doctor", "-t", &tag, "--cache-mode", "off"]).exits(3);
    assert!(line(&run.stdout, "registry").starts_with("WRONG"), "{}", run.stdout);
    assert!(run.stdout.contains("docker login"), "{}", run.stdout);
    assert!(line(&run.stdout, "cache").starts_with('-'), "{}", run.stdout);

    // Keys that the server does not know.
    let server = S3Server::start();
    let machine = server.variables().iter().fold(machine, |machine, (name, value)| machine.set(name, value));
    let machine = machine.set("AWS_SECRET_ACCESS_KEY", "wrong");
    let run = machine.hakobi(&["doctor", "--cache", &format!("s3://{BUCKET}/x")]).exits(4);
    assert!(line(&run.stdout, "cache").starts_with("WRONG"), "{}", run.stdout);

    // A pull request's role that could write what main reads.
    let run = machine.hakobi(&["doctor", "--cache", "../cache", "--cache-mode", "read-only"]).exits(0);
    assert!(line(&run.stdout, "cache").starts_with("hm") && run.stdout.contains("s3:PutObject"), "{}", run.stdout);

    // A daemon with which this host shares no network, and little room: the socket and a small disk are all there is.
    let mut far = machine.command("unshare");
    far.args(["--net", "--mount", "sh", "-c"]);
    far.arg(
        "ip link set lo up && mkdir -p ../small && mount -t tmpfs -o size=9m none ../small && TMPDIR=$PWD/../small exec \"$@\"",
    );
    far.args(["hakobi", env!("CARGO_BIN_EXE_hakobi"), "doctor", "--cache", "../cache"]);
    let run = Run::of(&mut far).exits(0);
    assert!(line(&run.stdout, "transport").starts_with("hm") && run.stdout.contains("as archives"), "{}", run.stdout);
    assert!(line(&run.stdout, "room").starts_with("hm"), "{}", run.stdout);
}
