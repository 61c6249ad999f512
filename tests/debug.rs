//! Tests `--debug` and `HAKOBI_LOG`: they show stages, requests and decisions, and no secret.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::engine::{C28, D20, D28, Engine};
use support::image::base;
use support::machine::{Machine, Run};
use support::parts::{part, unique};
use support::s3::{ACCESS_KEY, S3Server, SECRET_KEY};

const TOKEN: &str = "canary-4811-token";

/// The lines of `--debug`: they begin with a time.
fn lines(run: &Run) -> Vec<&str> {
    run.stderr.lines().filter(|line| line.get(..4).is_some_and(|year| year.parse::<u32>().is_ok())).collect()
}

fn shows_no_secret(name: &'static str) {
    let engine = Engine::fresh(name);
    let s3 = S3Server::start();
    let machine =
        s3.variables().into_iter().fold(Machine::with(&engine.host()).logged_in(), |m, (name, value)| m.set(name, &value));
    let machine = machine.set("HAKOBI_LOG", "trace");
    let image = format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY"), unique("debug"));
    let dockerfile = format!("FROM {}\nARG API_TOKEN\nRUN : $API_TOKEN\nCOPY file /$API_TOKEN\n", base("busybox"));
    machine.write("Dockerfile", &dockerfile);
    let argument = format!("API_TOKEN={TOKEN}");
    let arguments =
        ["build", "--network", "host", "--cache", "s3://cache/p", "--push", "-t", &image, "--build-arg", &argument, "."];
    let password = part("HAKOBI_TEST_REGISTRY_PASSWORD");
    let login = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        format!("{}:{password}", part("HAKOBI_TEST_REGISTRY_USER")),
    );
    // All of it runs; a file is new; nothing is.
    for (file, stages) in [("1", &["open", "plan", "execute", "publish", "record"][..]), ("2", &["plan"]), ("2", &["plan"])] {
        machine.write("file", file);
        let run = machine.hakobi(&arguments).exits(0);
        let lines = lines(&run);
        for stage in stages {
            let ends = [format!(" {stage}: "), format!(":{stage}: "), format!(" {stage}{{")];
            let has = |line: &&str| line.contains(": close ") && ends.iter().any(|end| line.contains(end));
            assert!(lines.iter().any(has), "{stage}: {}", run.stderr);
        }
        for service in ["registry", "store", "daemon"] {
            let has = |line: &&str| {
                let request = format!("request{{service=\"{service}\" method=\"");
                [&*request, " path=\"/", " attempt=1 ", " status=", " ms="].iter().all(|part| line.contains(part))
            };
            assert!(lines.iter().any(has), "{service}: {}", run.stderr);
        }
        assert!(lines.iter().any(|line| line.contains("planned unchanged=")), "{}", run.stderr);
        for secret in [TOKEN, &password, &login, ACCESS_KEY, SECRET_KEY, "X-Amz", "Bearer", "Authorization"] {
            let shown = lines.iter().find(|line| line.contains(secret));
            assert!(shown.is_none(), "{secret}: {shown:?}");
        }
        // The word in the address of the loopback endpoint: who knows it can push there.
        let is_word = |text: &str| text.len() >= 32 && text.bytes().take(32).all(|byte| byte.is_ascii_hexdigit());
        let shown = lines.iter().find(|line| line.split("hakobi-").skip(1).any(is_word));
        assert!(shown.is_none(), "{shown:?}");
    }
}

#[test]
fn debug_shows_no_secret_on_docker_20() {
    shows_no_secret(D20);
}

#[test]
fn debug_shows_no_secret_on_docker_28() {
    shows_no_secret(D28);
}

#[test]
fn debug_shows_no_secret_on_the_containerd_store() {
    shows_no_secret(C28);
}

#[test]
fn nothing_is_shown_that_was_not_asked_for() {
    let machine = Machine::without_daemon();
    machine.write("file", "1");
    let arguments = ["cache", "ls", "--cache", "../cache"];
    let with = |variables: &[(&str, &str)], more: &[&str]| {
        let machine = Machine::without_daemon();
        let machine = variables.iter().fold(machine, |machine, (name, value)| machine.set(name, value));
        machine.hakobi(&[&arguments[..], more].concat())
    };
    let plain = with(&[], &[]);
    assert!(lines(&plain).is_empty(), "{}", plain.stderr);
    for (variables, more) in [(&[("HAKOBI_LOG", "off")][..], &[][..]), (&[("HAKOBI_DEBUG", "false")], &[])] {
        let run = with(variables, more);
        assert_eq!((run.code, &run.stdout, &run.stderr), (plain.code, &plain.stdout, &plain.stderr));
    }
    let wrong = with(&[("HAKOBI_LOG", "hyper=debug")], &[]).exits(2);
    assert!(wrong.stderr.contains("`hyper` is not a module of hakobi"), "{}", wrong.stderr);
}
