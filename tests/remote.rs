//! Tests ADD of a URL and of a repository. Each plan checks them again. Their steps stay cached while the content is the same,
//! and the image has exactly the content that the plan found.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use hakobi::domain::Digest;
use hakobi::remote::{Client, commit};
use serde_json::Value;
use support::engine::{C28, D28, ENGINES, Engine};
use support::http_fake::{Say, Server, answer, serve};
use support::machine::{Machine, Run};
use support::parts::{part, unique};
use support::plain::{Times, now, plain_build, same_image};

/// What the server says of a path.
#[derive(Clone, Default)]
struct Page {
    status: u16,
    content: Vec<u8>,
    headers: Vec<(&'static str, String)>,
    /// What it says to HEAD, if not the same.
    head: Option<u16>,
    /// Whether each answer is another.
    counts: bool,
}

/// A server of a few pages, and what it was asked.
struct Pages {
    server: Server,
    pages: Arc<Mutex<HashMap<String, Page>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// Lives as long as what it serves.
    _runtime: Option<tokio::runtime::Runtime>,
}

impl Pages {
    async fn serving() -> Self {
        let (pages, asked) = (Arc::new(Mutex::new(HashMap::<String, Page>::new())), Arc::new(Mutex::new(Vec::new())));
        let (of, log) = (Arc::clone(&pages), Arc::clone(&asked));
        let server = serve(move |request| {
            let path = request.uri().path().to_owned();
            let mut asked = log.lock().unwrap();
            asked.push(format!("{} {path}", request.method()));
            let count = asked.len();
            let page = of.lock().unwrap().get(&path).cloned();
            let is_head = request.method() == "HEAD";
            Box::pin(async move {
                let Some(page) = page else { return Say::Cut };
                let headers: Vec<(&str, &str)> = page.headers.iter().map(|(name, value)| (*name, &**value)).collect();
                let mut content = page.content.clone();
                if page.counts {
                    content.extend(count.to_string().into_bytes());
                }
                let status = page.head.filter(|_| is_head).unwrap_or(page.status);
                Say::This(answer(status, &headers, if is_head { Vec::new() } else { content }))
            })
        })
        .await;
        Self { server, pages, asked, _runtime: None }
    }

    /// For tests that wait for programs.
    fn beside() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let pages = runtime.block_on(Self::serving());
        Self { _runtime: Some(runtime), ..pages }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }

    fn put(&self, path: &str, content: &[u8], headers: &[(&'static str, &str)]) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let page = Page { status: 200, content: content.to_vec(), headers, ..Page::default() };
        self.pages.lock().unwrap().insert(path.to_owned(), page);
    }

    fn change(&self, path: &str, change: impl FnOnce(&mut Page)) {
        change(self.pages.lock().unwrap().get_mut(path).unwrap());
    }

    /// Since this was called last.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

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

fn build(machine: &Machine, image: &str, more: &[&str]) -> Run {
    let own = ["build", "--strategy", "auto", "--network", "host", "--report", "../report.json", "--cache", "../cache"];
    machine.hakobi(&[&own[..], &["--push", "-t", image], more, &["."]].concat())
}

/// One run on a machine whose Docker is empty.
fn built(engine: &Engine, machine: &Machine, image: &str, more: &[&str]) -> Value {
    engine.wipe();
    build(machine, image, more).exits(0);
    machine.report("../report.json")
}

fn base() -> String {
    format!("{}/base/busybox:latest", part("HAKOBI_TEST_REGISTRY_OPEN"))
}

fn statuses(report: &Value) -> Vec<&str> {
    report["steps"].as_array().unwrap().iter().map(|step| step["status"].as_str().unwrap()).collect()
}

#[test]
fn a_url_is_kept_until_it_holds_something_else() {
    for name in ENGINES {
        let engine = Engine::lock(name);
        let pages = Pages::beside();
        let machine = Machine::with(&engine.host());
        let url = pages.url("/data.txt");
        let random = "cat /proc/sys/kernel/random/uuid > /uuid";
        machine.write("Dockerfile", &format!("FROM {}\nADD {url} /data/\nRUN cp /data/data.txt /copied; {random}\n", base()));
        let image = format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("remote"));
        let shown = |path: &str| engine.docker(&["run", "--rm", "--network", "host", &image, "cat", path]);
        pages.put("/data.txt", b"one", &[("etag", "\"1\""), ("last-modified", "Tue, 03 Nov 2026 10:00:00 GMT")]);
        let cold = built(&engine, &machine, &image, &[]);
        assert_eq!((cold["tier"].as_str(), statuses(&cold)), (Some("cold"), vec!["miss", "miss"]), "{name}: {cold:#}");
        assert_eq!(shown("/copied"), "one");
        pages.asked();

        let same = built(&engine, &machine, &image, &[]);
        assert_eq!(same["tier"], "unchanged", "{name}: {same:#}");
        assert_eq!(same["images"][0]["digest"], cold["images"][0]["digest"]);
        assert_eq!(pages.asked(), ["HEAD /data.txt"], "nothing is read that is known");
        // Another name for the same, written later: as BuildKit has it, what is copied is the same.
        pages.put("/data.txt", b"one", &[("etag", "\"2\"")]);
        let renamed = built(&engine, &machine, &image, &[]);
        assert_eq!(renamed["images"][0]["digest"], cold["images"][0]["digest"], "{name}: {renamed:#}");

        pages.put("/data.txt", b"two", &[("etag", "\"3\"")]);
        let changed = built(&engine, &machine, &image, &[]);
        assert_eq!(statuses(&changed), ["miss", "miss"], "{name}: {changed:#}");
        let reason = changed["steps"][0]["reason"].as_str().unwrap();
        assert!(reason.starts_with(&format!("{url} is now sha256:")), "{name}: {reason}");
        assert_eq!(shown("/copied"), "two");
        // What is built without the cache counts from then on.
        let uuid = shown("/uuid");
        let anew = built(&engine, &machine, &image, &["--no-cache"]);
        assert_eq!(statuses(&anew), ["miss", "miss"], "{name}: {anew:#}");
        let after = built(&engine, &machine, &image, &[]);
        assert_eq!(after["tier"], "unchanged", "{name}: {after:#}");
        assert_ne!(shown("/uuid"), uuid);
        // A server without names is read, and takes no daemon either.
        pages.put("/data.txt", b"two", &[]);
        build(&machine, &image, &[]).exits(0);
        let machine = machine.set("DOCKER_HOST", "unix:///nowhere/docker.sock");
        build(&machine, &image, &[]).exits(0);
        assert_eq!(machine.report("../report.json")["tier"], "unchanged");
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
            &format!("FROM {}\nRUN true\nADD {} /data\nRUN cp /data /copied\n", base(), pages.url("/count")),
        );
        let image = format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("count"));
        let shown = || engine.docker(&["run", "--rm", "--network", "host", &image, "cat", "/copied"]);
        pages.put("/count", b"count ", &[]);
        pages.change("/count", |page| page.counts = true);
        engine.wipe();
        let told = build(&machine, &image, &[]).exits(0).stderr;
        assert!(told.contains("the daemon received another remote file than hakobi saw"), "{name}: {told}");
        let first = shown();
        let again = built(&engine, &machine, &image, &[]);
        assert_eq!(statuses(&again), ["hit", "miss", "miss"], "{name}: {again:#}");
        assert_eq!(again["steps"][2]["key"], "", "{name}: {again:#}");
        assert_ne!(shown(), first);
    }
}

/// A repository that is served, with a file of one line.
struct Repository {
    folder: tempfile::TempDir,
    serving: Child,
    port: u16,
}

impl Drop for Repository {
    fn drop(&mut self) {
        let _ = self.serving.kill();
        let _ = self.serving.wait();
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]).args(arguments);
    let ended = command.current_dir(folder).env("HOME", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").output().unwrap();
    assert!(ended.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8_lossy(&ended.stdout).trim().to_owned()
}

impl Repository {
    fn served() -> Self {
        let folder = tempfile::tempdir().unwrap();
        git(folder.path(), &["init", "-q", "r.git"]);
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let base = format!("--base-path={}", folder.path().display());
        let listen = ["--listen=127.0.0.1".to_owned(), format!("--port={port}")];
        // The program itself: `git daemon` would leave it running.
        let program = Path::new(&git(folder.path(), &["--exec-path"])).join("git-daemon");
        let mut command = Command::new(program);
        command.args(listen).args(["--export-all", "--reuseaddr", &base]).arg(folder.path());
        let serving = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let repository = Self { folder, serving, port };
        repository.commit("one");
        for _ in 0..100 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        repository
    }

    fn git(&self, arguments: &[&str]) -> String {
        git(&self.folder.path().join("r.git"), arguments)
    }

    fn commit(&self, text: &str) -> String {
        std::fs::write(self.folder.path().join("r.git/file"), text).unwrap();
        self.git(&["add", "file"]);
        self.git(&["commit", "-q", "-m", text]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn url(&self) -> String {
        format!("git://127.0.0.1:{}/r.git", self.port)
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
        machine.write("Dockerfile", &format!("FROM {}\nRUN true\nADD {url}#main /src\nRUN cp /src/file /copied\n", base()));
        let image = format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("branch"));
        let shown = || engine.docker(&["run", "--rm", "--network", "host", &image, "cat", "/copied"]);
        let cold = built(&engine, &machine, &image, &[]);
        assert_eq!(cold["tier"], "cold", "{name}: {cold:#}");
        assert_eq!(shown(), "one");
        repository.git(&["branch", "other"]);
        let same = built(&engine, &machine, &image, &[]);
        assert_eq!(same["tier"], "unchanged", "{name}: {same:#}");
        assert_eq!(same["images"][0]["digest"], cold["images"][0]["digest"]);

        let second = repository.commit("two");
        let moved = built(&engine, &machine, &image, &[]);
        assert_eq!(statuses(&moved), ["hit", "miss", "miss"], "{name}: {moved:#}");
        let reason = moved["steps"][1]["reason"].as_str().unwrap();
        assert_eq!(reason, format!("{url}#main is now commit {}", &second[..12]), "{name}");
        assert_eq!(shown(), "two");
        // Nobody needs the daemon for what did not change.
        let machine = machine.set("DOCKER_HOST", "unix:///nowhere/docker.sock");
        build(&machine, &image, &[]).exits(0);
        assert_eq!(machine.report("../report.json")["tier"], "unchanged");
        let machine = machine.set("DOCKER_HOST", &engine.host());
        // A branch that moved to other commits with the same files costs a look, and no step behind it.
        repository.git(&["commit", "-q", "--allow-empty", "-m", "nothing"]);
        let same = built(&engine, &machine, &image, &[]);
        assert_eq!(same["images"][0]["digest"], moved["images"][0]["digest"], "{name}: {same:#}");
    }
}

/// What plain `docker build` and hakobi say of a Dockerfile that the daemon refuses, each on a machine whose Docker is empty.
fn refused(engine: &Engine, machine: &Machine, image: &str, words: &str) {
    engine.wipe();
    let plain = plain_build(engine, machine, image, &[]).exits(1);
    engine.wipe();
    let ours = build(machine, image, &[]).exits(1);
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
        let image = format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("checksum"));
        let plain = format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("checksum-plain"));
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
            let cold = built(&engine, &machine, &image, &[]);
            assert_eq!(cold["tier"], "cold", "{name}, {fragment}: {cold:#}");
            same_image(&engine, &image, &plain, Times::No, since, fragment);
            let same = built(&engine, &machine, &image, &[]);
            assert_eq!(
                (same["tier"].as_str(), statuses(&same)),
                (Some("unchanged"), vec!["hit"]),
                "{name}, {fragment}: {same:#}"
            );
            assert_eq!(same["images"][0]["digest"], cold["images"][0]["digest"]);
        }
        // The image of the commit is in the cache, and the tag is elsewhere.
        repository.git(&["tag", "-f", "v1"]);
        refused(&engine, &machine, &image, differs);
        // A daemon that has the commit takes it, as plain `docker build` does, and nothing of that is remembered.
        let other = Machine::with(&engine.host());
        add(&other, &first, &format!("#{first}"));
        build(&other, &image, &[]).exits(0);
        build(&machine, &image, &[]).exits(0);
        refused(&engine, &machine, &image, differs);
    }
}
