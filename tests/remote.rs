//! Tests ADD of a URL and of a repository. Each plan checks them again. Their steps stay cached while the content is the same,
//! and the image has exactly the content that the plan found.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "remote/pages.rs"]
mod pages;
#[path = "remote/repository.rs"]
mod repository;

use std::io::Write as _;

use hakobi::domain::Digest;
use hakobi::remote::{Client, commit};
use pages::Pages;
use repository::Repository;
use support::build::{Build, NO_DAEMON};
use support::engine::{C28, D28, ENGINES, Engine};
use support::image::{base, unique_image};
use support::machine::Machine;
use support::plain::{Times, now, plain_build, same_image};

#[tokio::test]
async fn a_file_is_read_where_its_server_calls_it_by_another_name() {
    let pages = Pages::serving().await;
    let client = Client::new().unwrap();
    pages.put("/a", b"one", &[("etag", "W/\"1\""), ("last-modified", "Tue, 03 Nov 2026 10:00:00 GMT")]);
    let first = client.file(&pages.url("/a"), None).await.unwrap();
    assert!(first.was_read);
    assert_eq!((&*first.version.etag, &first.version.content), ("\"1\"", &Digest::hash(b"one")));
    assert_eq!(first.version.modified, "Tue, 03 Nov 2026 10:00:00 GMT");
    let again = async || client.file(&pages.url("/a"), Some(&first.version)).await.unwrap();
    assert!(!again().await.was_read);
    assert_eq!(pages.asked(), ["GET /a", "HEAD /a"]);
    // One that says that nothing changed may leave the name out.
    pages.change("/a", |page| (page.head, page.headers) = (Some(304), Vec::new()));
    assert!(!again().await.was_read);
    // One that does not know HEAD is asked for all of it.
    pages.change("/a", |page| page.head = Some(405));
    assert!(again().await.was_read);
    pages.put("/a", b"two", &[("etag", "\"2\"")]);
    let changed = again().await;
    assert_eq!((changed.was_read, changed.version.content), (true, Digest::hash(b"two")));
    // Without a name there is nothing to compare.
    pages.put("/plain", b"plain", &[("last-modified", "Tue, 03 Nov 2026 10:00:00 GMT")]);
    let plain = client.file(&pages.url("/plain"), None).await.unwrap();
    assert_eq!(plain.version.etag, "");
    assert!(client.file(&pages.url("/plain"), Some(&plain.version)).await.unwrap().was_read);

    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(b"packed").unwrap();
    pages.put("/gzip", &packed.finish().unwrap(), &[("content-encoding", "gzip")]);
    assert_eq!(client.file(&pages.url("/gzip"), None).await.unwrap().version.content, Digest::hash(b"packed"));
    pages.put("/moved", b"", &[("location", "/a")]);
    pages.change("/moved", |page| page.status = 302);
    assert_eq!(client.file(&pages.url("/moved"), None).await.unwrap().version.content, Digest::hash(b"two"));

    pages.change("/a", |page| page.status = 503);
    assert_eq!(client.file(&pages.url("/a"), None).await, Err("its server answered 503 Service Unavailable".to_owned()));
    assert_eq!(client.file(&pages.url("/absent"), None).await, Err("the connection to its server broke".to_owned()));
    assert_eq!(client.file("http://127.0.0.1:1/a", None).await, Err("failed to reach its server".to_owned()));
}

/// The build of all these tests.
fn build<'a>(machine: &'a Machine, image: &str) -> Build<'a> {
    Build::cached(machine).strategy("auto").push(image)
}

#[test]
fn a_url_is_kept_until_it_holds_something_else() {
    for name in ENGINES {
        let engine = Engine::lock(name);
        let pages = Pages::beside();
        let machine = Machine::with(&engine.host());
        let url = pages.url("/data.txt");
        let random = "cat /proc/sys/kernel/random/uuid > /uuid";
        machine.write(
            "Dockerfile",
            &format!("FROM {}\nADD {url} /data/\nRUN cp /data/data.txt /copied; {random}\n", base("busybox")),
        );
        let image = unique_image("remote");
        let build = build(&machine, &image);
        let shown = |path: &str| engine.docker(&["run", "--rm", "--network", "host", &image, "cat", path]);
        pages.put("/data.txt", b"one", &[("etag", "\"1\""), ("last-modified", "Tue, 03 Nov 2026 10:00:00 GMT")]);
        let cold = build.done_on_empty(&engine);
        assert_eq!((cold.tier(), cold.statuses()), ("cold", vec!["miss", "miss"]), "{name}: {cold}");
        assert_eq!(shown("/copied"), "one");
        pages.asked();

        let same = build.done_on_empty(&engine);
        assert_eq!((same.tier(), same.digest()), ("unchanged", cold.digest()), "{name}: {same}");
        assert_eq!(pages.asked(), ["HEAD /data.txt"], "nothing is read that is known");
        // Another name for the same, written later: as BuildKit has it, what is copied is the same.
        pages.put("/data.txt", b"one", &[("etag", "\"2\"")]);
        let renamed = build.done_on_empty(&engine);
        assert_eq!(renamed.digest(), cold.digest(), "{name}: {renamed}");

        pages.put("/data.txt", b"two", &[("etag", "\"3\"")]);
        let changed = build.done_on_empty(&engine);
        assert_eq!(changed.statuses(), ["miss", "miss"], "{name}: {changed}");
        let reason = changed["steps"][0]["reason"].as_str().unwrap();
        assert!(reason.starts_with(&format!("{url} is now sha256:")), "{name}: {reason}");
        assert_eq!(shown("/copied"), "two");
        // What is built without the cache counts from then on.
        let uuid = shown("/uuid");
        let anew = build.clone().with(&["--no-cache"]).done_on_empty(&engine);
        assert_eq!(anew.statuses(), ["miss", "miss"], "{name}: {anew}");
        build.done_on_empty(&engine).is("unchanged");
        assert_ne!(shown("/uuid"), uuid);
        // A server without names is read, and takes no daemon either.
        pages.put("/data.txt", b"two", &[]);
        build.done();
        build.on(NO_DAEMON).done().is("unchanged");
    }
}

#[test]
fn what_is_another_thing_each_time_is_never_kept() {
    for name in ENGINES {
        let engine = Engine::lock(name);
        let pages = Pages::beside();
        let machine = Machine::with(&engine.host());
        machine.write(
            "Dockerfile",
            &format!("FROM {}\nRUN true\nADD {} /data\nRUN cp /data /copied\n", base("busybox"), pages.url("/count")),
        );
        let image = unique_image("count");
        let build = build(&machine, &image);
        let shown = || engine.docker(&["run", "--rm", "--network", "host", &image, "cat", "/copied"]);
        pages.put("/count", b"count ", &[]);
        pages.change("/count", |page| page.counts = true);
        let built = build.done_on_empty(&engine);
        assert!(built.log().contains("the daemon received another remote file than hakobi saw"), "{name}: {built}");
        let first = shown();
        let again = build.done_on_empty(&engine);
        assert_eq!(again.statuses(), ["hit", "miss", "miss"], "{name}: {again}");
        assert_eq!(again["steps"][2]["key"], "", "{name}: {again}");
        assert_ne!(shown(), first);
    }
}

#[tokio::test]
async fn a_branch_is_the_commit_that_it_leads_to() {
    let repository = Repository::served();
    let url = repository.url();
    let first = repository.git(&["rev-parse", "HEAD"]);
    repository.git(&["tag", "-a", "v1", "-m", "v1"]);
    let second = repository.commit("two");
    assert_eq!(commit(&url, "main").await, Ok(second.clone()));
    assert_eq!(commit(&url, "").await, Ok(second));
    assert_eq!(commit(&url, "v1").await, Ok(first), "not the tag's own object");
    assert_eq!(commit(&url, "none").await, Err("it has no branch and no tag none".to_owned()));
    let absent = commit(&url.replace("r.git", "absent"), "main").await.unwrap_err();
    assert!(absent.starts_with("git says: "), "{absent}");
}

#[test]
fn a_branch_is_kept_until_it_moves() {
    // Docker 20.10's own frontend knows no ADD of a repository.
    for name in [D28, C28] {
        let engine = Engine::lock(name);
        let repository = Repository::served();
        let machine = Machine::with(&engine.host());
        let url = repository.url();
        machine
            .write("Dockerfile", &format!("FROM {}\nRUN true\nADD {url}#main /src\nRUN cp /src/file /copied\n", base("busybox")));
        let image = unique_image("branch");
        let build = build(&machine, &image);
        let shown = || engine.docker(&["run", "--rm", "--network", "host", &image, "cat", "/copied"]);
        let cold = build.done_on_empty(&engine);
        assert_eq!(cold.tier(), "cold", "{name}: {cold}");
        assert_eq!(shown(), "one");
        repository.git(&["branch", "other"]);
        let same = build.done_on_empty(&engine);
        assert_eq!((same.tier(), same.digest()), ("unchanged", cold.digest()), "{name}: {same}");

        let second = repository.commit("two");
        let moved = build.done_on_empty(&engine);
        assert_eq!(moved.statuses(), ["hit", "miss", "miss"], "{name}: {moved}");
        let reason = moved["steps"][1]["reason"].as_str().unwrap();
        assert_eq!(reason, format!("{url}#main is now commit {}", &second[..12]), "{name}");
        assert_eq!(shown(), "two");
        // Nobody needs the daemon for what did not change.
        build.clone().on(NO_DAEMON).done().is("unchanged");
        // A branch that moved to other commits with the same files costs a look, and no step behind it.
        repository.git(&["commit", "-q", "--allow-empty", "-m", "nothing"]);
        let same = build.done_on_empty(&engine);
        assert_eq!(same.digest(), moved.digest(), "{name}: {same}");
    }
}

/// What plain `docker build` and hakobi say of a Dockerfile that the daemon refuses, each on a machine whose Docker is empty.
fn refused(engine: &Engine, machine: &Machine, image: &str, words: &str) {
    engine.wipe();
    let plain = plain_build(engine, machine, image, &[]).exits(1);
    let ours = build(machine, image).run_on_empty(engine).exits(1);
    assert!(plain.stderr.contains(words) && ours.stderr.contains(words), "{}\n{}", plain.stderr, ours.stderr);
}

#[test]
fn a_checksum_of_a_commit_is_held_to_and_kept() {
    for name in [D28, C28] {
        let engine = Engine::lock(name);
        let repository = Repository::served();
        let mut machine = Machine::with(&engine.host());
        let first = repository.git(&["rev-parse", "HEAD"]);
        repository.git(&["tag", "v1"]);
        let second = repository.commit("two");
        let image = unique_image("checksum");
        let plain = unique_image("checksum-plain");
        let add = |machine: &Machine, checksum: &str, fragment: &str| {
            let url = repository.url();
            machine.write("Dockerfile", &format!("FROM scratch\nADD --checksum={checksum} {url}{fragment} /src\n"));
        };
        let differs = "expected checksum to match";
        for (checksum, fragment) in [(&*second, "#v1"), (&*first, ""), (&second[..8], "#v1"), (&*second, &format!("#{first}"))] {
            add(&machine, checksum, fragment);
            refused(&engine, &machine, &image, differs);
        }
        for (checksum, fragment) in [(&*second, ""), (&*first, &format!("#{first}")), (&first[..8], "#v1"), (&*first, "#v1")] {
            machine = Machine::with(&engine.host());
            add(&machine, checksum, fragment);
            let since = now();
            engine.wipe();
            plain_build(&engine, &machine, &plain, &[]).exits(0);
            let cold = build(&machine, &image).done_on_empty(&engine);
            assert_eq!(cold.tier(), "cold", "{name}, {fragment}: {cold}");
            same_image(&engine, &image, &plain, Times::No, since, fragment);
            let same = build(&machine, &image).done_on_empty(&engine);
            assert_eq!((same.tier(), same.statuses()), ("unchanged", vec!["hit"]), "{name}, {fragment}: {same}");
            assert_eq!(same.digest(), cold.digest());
        }
        // The image of the commit is in the cache, and the tag is elsewhere.
        repository.git(&["tag", "-f", "v1"]);
        refused(&engine, &machine, &image, differs);
        // A daemon that has the commit takes it, as plain `docker build` does, and nothing of that is remembered.
        let other = Machine::with(&engine.host());
        add(&other, &first, &format!("#{first}"));
        build(&other, &image).run().exits(0);
        build(&machine, &image).run().exits(0);
        refused(&engine, &machine, &image, differs);
    }
}
