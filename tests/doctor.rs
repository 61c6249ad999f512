//! Tests each check of `hakobi doctor`, once with success and once with a failure.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::engine::{D28, Engine};
use support::machine::{Machine, Run};
use support::parts::{part, unique};
use support::s3::{BUCKET, Bucket, S3Server};

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
    let machine = machine.logged_in().set("TRAVIS", "true").set("TRAVIS_BRANCH", "dev");
    let tag = format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY"), unique("doctor"));
    let cache = format!("s3://{BUCKET}/doctor");
    let told = machine.hakobi(&["doctor", "-t", &tag, "--cache", &cache]).exits(0).stdout;
    for what in ["ci", "daemon", "transport", "registry", "cache", "clock", "room"] {
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

/// A job that reaches this server's bucket.
fn with_bucket(server: &S3Server) -> Machine {
    let machine = Machine::with("unix:///nowhere/docker.sock");
    server.variables().iter().fold(machine, |machine, (name, value)| machine.set(name, value))
}

/// Lifecycle rules as S3 gives them, of the prefix `hakobi/`.
fn lifecycle(inside: &str) -> String {
    format!(
        "<LifecycleConfiguration><Rule><ID>layers</ID><Status>Enabled</Status><Filter><Prefix>hakobi/</Prefix></Filter>\
         {inside}</Rule></LifecycleConfiguration>"
    )
}

/// What doctor says of a thing, after its mark, and how to mend it.
fn said(machine: &Machine, cache: &str, more: &[&str], what: &str) -> (String, String) {
    let run = machine.hakobi(&[&["doctor", "--cache", cache], more].concat());
    let mut lines = run.stdout.lines().skip_while(|line| line.split_whitespace().nth(1) != Some(what));
    let first = lines.next().unwrap_or_else(|| panic!("no {what} in:\n{}{}", run.stdout, run.stderr));
    (first.to_owned(), lines.next().unwrap_or_default().trim().to_owned())
}

#[test]
fn what_the_bucket_does_by_itself() {
    let server = S3Server::start();
    let machine = with_bucket(&server);
    let cache = format!("s3://{BUCKET}/hakobi");
    let told = |inside: &str| {
        server.set(Bucket { lifecycle: Some(lifecycle(inside)), ..Bucket::default() });
        said(&machine, &cache, &[], "lifecycle")
    };
    let expires = |days: u32| format!("<Expiration><Days>{days}</Days></Expiration>");
    let aborts = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>";
    let (right, _) = told(&format!("{}{aborts}", expires(30)));
    assert!(right.starts_with("ok") && right.ends_with("removes objects 30 days after they were written"), "{right}");
    let (short, _) = told(&format!("{}{aborts}", expires(1)));
    assert!(short.starts_with("hm"), "{short}");
    let (none, mend) = told(aborts);
    assert!(none.starts_with("hm") && none.contains("it grows without limit") && mend.contains("docs/costs.md"), "{none} {mend}");
    let (endless, mend) = told(&expires(30));
    assert!(endless.starts_with("hm") && mend.contains("AbortIncompleteMultipartUpload"), "{endless} {mend}");
    let (archived, _) = told(
        "<Transition><Days>10</Days><StorageClass>GLACIER</StorageClass></Transition><Expiration><Days>30</Days></Expiration>",
    );
    assert!(archived.starts_with("WRONG") && archived.contains("does not allow immediate reads"), "{archived}");
    server.set(Bucket::default());
    let (silent, _) = said(&machine, &cache, &[], "lifecycle");
    assert!(silent.starts_with('-'), "a server that knows no such rules: {silent}");
}

#[test]
fn the_key_the_clock_and_the_scope() {
    let server = S3Server::start();
    let machine = with_bucket(&server);
    server.set(Bucket { keys: vec!["alias/cache"], ..Bucket::default() });
    let with_key = |key: &str| format!("s3://{BUCKET}/hakobi?kms-key={key}");
    let (right, _) = said(&machine, &with_key("alias/cache"), &[], "encryption");
    assert!(right.starts_with("ok") && right.contains("aws:kms with the key alias/cache"), "{right}");
    for key in ["alias/denied", "alias/none"] {
        let (wrong, mend) = said(&machine, &with_key(key), &[], "cache");
        assert!(wrong.starts_with("WRONG") && mend.contains("kms:GenerateDataKey"), "{wrong} {mend}");
    }

    let cache = format!("s3://{BUCKET}/hakobi");
    let hour = std::time::Duration::from_secs(3600);
    server.set(Bucket { behind: hour, ..Bucket::default() });
    let (clock, mend) = said(&machine, &cache, &[], "clock");
    assert!(clock.starts_with("WRONG") && clock.contains("60 minutes apart") && mend.contains("set the clock"), "{clock} {mend}");

    // A pull request, whose job should not reach what main's builds trust.
    let machine = machine.set("TRAVIS", "true").set("TRAVIS_PULL_REQUEST", "7").set("TRAVIS_BRANCH", "main");
    server.set(Bucket { guarded: vec!["hakobi/steps/main/".to_owned()], ..Bucket::default() });
    let (right, _) = said(&machine, &cache, &[], "scope");
    assert!(right.starts_with("ok") && right.contains("cannot write the scope main"), "{right}");
    server.set(Bucket::default());
    let (loose, mend) = said(&machine, &cache, &[], "scope");
    assert!(loose.starts_with("hm") && mend.contains("a role that can write only steps/pr-7/*"), "{loose} {mend}");
    let left = walk(&server.objects());
    assert!(left.is_empty(), "nothing stays: {left:?}");
    server.set(Bucket { guarded: vec!["hakobi/".to_owned()], ..Bucket::default() });
    let (read, _) = said(&machine, &cache, &["--cache-mode", "read-only"], "cache");
    assert!(read.starts_with("ok") && read.contains("is readable, but not writable"), "{read}");
}

#[test]
fn a_proxy_that_is_not_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let machine =
        Machine::with("unix:///nowhere/docker.sock").set("HTTPS_PROXY", &format!("http://user:secret@127.0.0.1:{port}"));
    let (there, _) = said(&machine, "../cache", &[], "proxy");
    assert!(there.starts_with("ok") && !there.contains("secret"), "{there}");
    drop(listener);
    let (gone, mend) = said(&machine, "../cache", &[], "proxy");
    assert!(gone.starts_with("WRONG") && mend.contains("unset it") && !gone.contains("secret"), "{gone} {mend}");
    let machine = machine.set("HTTPS_PROXY", "http://[broken");
    let run = machine.hakobi(&["doctor", "--cache", "../cache"]).exits(2);
    assert!(run.stderr.contains("HTTPS_PROXY is not a valid proxy URL"), "{}", run.stderr);
}
