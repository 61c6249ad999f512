//! Tests against other processes of the host: what they can read of a run, what they can send to it, and what a killed run leaves.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hakobi::domain::{Descriptor, Digest, Made, RawManifest, media_type};
use hakobi::handover::{Intake, Known};
use hakobi::local_registry::Endpoint;
use hakobi::settings::Compression;
use serde_json::json;
use support::engine::{C28, D28, ENGINES, Engine};
use support::image::base;
use support::machine::Machine;
use support::parts::{part, unique};

fn project(machine: &Machine) -> String {
    let text = format!("FROM {}\nRUN head -c 2000000 /dev/urandom >/large\nCOPY src.txt /\n", base("busybox"));
    machine.write("Dockerfile", &text).write("src.txt", "one\n");
    format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("attacks"))
}

/// What of a text tells where a loopback endpoint is: an address of this host that is none of the tests' own, or its word.
fn leaks(text: &str) -> Vec<String> {
    let own = [part("HAKOBI_TEST_REGISTRY_OPEN"), part("HAKOBI_TEST_REGISTRY")];
    let addresses = text.match_indices("127.0.0.1:").map(|(at, _)| text[at..].split(['/', ' ', '"', '\n', '\'']).next().unwrap());
    let mut found: Vec<String> = addresses.filter(|address| !own.iter().any(|own| own == address)).map(str::to_owned).collect();
    let words = text.match_indices("hakobi-").map(|(at, _)| &text[at + 7..]);
    found.extend(words.filter_map(|word| {
        let word: String = word.chars().take_while(char::is_ascii_hexdigit).collect();
        (word.len() >= 32).then_some(word)
    }));
    found
}

/// Runs hakobi and looks at its standard error while it grows, as a process does that follows a job's log.
fn followed(machine: &Machine, arguments: &[&str]) -> (i32, String) {
    let mut command = machine.command(env!("CARGO_BIN_EXE_hakobi"));
    let mut child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = stderr.read(&mut buffer) {
            all.extend_from_slice(&buffer[..read]);
            let leaks = leaks(&String::from_utf8_lossy(&all));
            assert!(leaks.is_empty(), "{leaks:?} in\n{}", String::from_utf8_lossy(&all));
        }
        String::from_utf8_lossy(&all).into_owned()
    });
    let code = child.wait().unwrap().code().unwrap_or(-1);
    (code, reader.join().unwrap())
}

#[test]
fn nothing_shows_where_the_endpoint_is() {
    for name in ENGINES {
        let engine = Engine::lock(name);
        for (transport, mode) in
            [("registry", "plain"), ("registry", "tty"), ("registry", "rawjson"), ("registry", "quiet"), ("archive", "plain")]
        {
            let machine = Machine::with(&engine.host());
            let image = project(&machine);
            let files = ["--report", "../report.json", "--timeline", "../timeline.html", "--metadata-file", "../metadata.json"];
            let options = ["build", "--network", "host", "--cache", "../cache", "--push", "--transport", transport];
            let all = [&options[..], &files, &["--summary", "../summary.md", "--progress", mode, "-t", &image, "."]].concat();
            // Cold, an append, and a part that comes from the cache.
            for (file, text) in [("src.txt", "one\n"), ("src.txt", "two\n"), ("Dockerfile", "")] {
                let text = if text.is_empty() { machine.read(file) + "RUN cat /src.txt\n" } else { text.to_owned() };
                machine.write(file, &text);
                engine.wipe();
                let (code, stderr) = followed(&machine, &all);
                assert_eq!(code, 0, "{name} {mode}: {stderr}");
                for file in ["../report.json", "../timeline.html", "../metadata.json", "../summary.md"] {
                    assert_eq!(leaks(&machine.read(file)), [""; 0], "{name} {mode} {file}");
                }
            }
        }
        // A build that fails after the daemon pulled from there, and a push that fails.
        let machine = Machine::with(&engine.host());
        let image = project(&machine);
        let options = ["build", "--network", "host", "--cache", "../cache", "--push", "-t", &image, "."];
        assert_eq!(followed(&machine, &options).0, 0);
        machine.write("Dockerfile", &(machine.read("Dockerfile") + "RUN false\n"));
        engine.wipe();
        assert_eq!(followed(&machine, &options).0, 1);
    }
}

/// Who knows the endpoint's name, and what it may push: an image with one layer.
struct Pushed {
    client: reqwest::Client,
    base: String,
    intake: Intake,
    _endpoint: Endpoint,
    _directory: tempfile::TempDir,
}

struct Image {
    manifest: RawManifest,
    config: Digest,
}

impl Pushed {
    async fn start() -> Self {
        hakobi::registry::install_crypto();
        let directory = tempfile::tempdir().unwrap();
        let intake = Intake::new(Vec::new(), Known::default(), Compression::Gzip(6), directory.path().to_owned());
        let endpoint = Endpoint::start(Arc::new(intake.clone()), directory.path().to_owned()).await.unwrap();
        let name = endpoint.reference("image");
        let base = format!("http://{}/v2/{}", name.repository.host, name.repository.path);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { client, base, intake, _endpoint: endpoint, _directory: directory }
    }

    async fn blob(&self, bytes: &[u8]) -> Digest {
        let begun = self.client.post(format!("{}/blobs/uploads/", self.base)).send().await.unwrap();
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        let host = self.base.split("/v2/").next().unwrap();
        let digest = Digest::hash(bytes);
        let put = self.client.put(format!("{host}{location}?digest={digest}")).body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(put.status(), 201);
        digest
    }

    /// An image with this layer, whose configuration says that it is the layer `says`.
    async fn image(&self, layer: &str, says: &str) -> Image {
        let diff_id = hakobi::domain::DiffId::hash(says.as_bytes());
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
        });
        let config = config.to_string();
        let digest = self.blob(config.as_bytes()).await;
        self.blob(layer.as_bytes()).await;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": Descriptor::new(media_type::OCI_CONFIG, digest.clone(), config.len() as u64),
            "layers": [Descriptor::new(media_type::OCI_LAYER, Digest::hash(layer.as_bytes()), layer.len() as u64)],
        });
        Image { manifest: RawManifest::from_json(media_type::OCI_MANIFEST, &manifest).unwrap(), config: digest }
    }

    async fn put(&self, image: &Image) -> u16 {
        let url = format!("{}/manifests/image", self.base);
        let put = self.client.put(url).header("content-type", media_type::OCI_MANIFEST).body(image.manifest.bytes.clone());
        put.send().await.unwrap().status().as_u16()
    }

    async fn composed(&self) -> Result<Digest, String> {
        let composed = self.intake.compose("image", &BTreeMap::new()).await.map_err(|error| error.to_string())?;
        Ok(composed[0].diff_ids[0].to_string().parse().unwrap())
    }
}

fn made(digest: &Digest) -> Made {
    Made { digests: vec![digest.clone()], diff_ids: Vec::new() }
}

#[tokio::test]
async fn only_what_the_daemon_made_is_taken() {
    // BuildKit pushes itself, and says afterwards what it made.
    let pushed = Pushed::start().await;
    let (ours, theirs) = (pushed.image("ours", "ours").await, pushed.image("theirs", "theirs").await);
    assert_eq!(pushed.put(&ours).await, 201);
    assert_eq!(pushed.put(&theirs).await, 400, "a second one under the same name");
    assert_eq!(pushed.put(&ours).await, 201, "again the same");
    pushed.intake.expect("image", made(&ours.manifest.digest()), false);
    assert_eq!(pushed.composed().await.unwrap(), Digest::hash(b"ours"));

    // The other one comes first: the build fails.
    let pushed = Pushed::start().await;
    let (ours, theirs) = (pushed.image("ours", "ours").await, pushed.image("theirs", "theirs").await);
    assert_eq!(pushed.put(&theirs).await, 201);
    assert_eq!(pushed.put(&ours).await, 400);
    pushed.intake.expect("image", made(&ours.manifest.digest()), false);
    assert!(pushed.composed().await.unwrap_err().contains("another image was pushed"));
    assert!(pushed.intake.layers_above("image", 0).await.unwrap_err().to_string().contains("another image was pushed"));

    // Nobody says what was made.
    let pushed = Pushed::start().await;
    let ours = pushed.image("ours", "ours").await;
    assert_eq!(pushed.put(&ours).await, 201);
    assert!(pushed.composed().await.is_err());
    pushed.intake.expect("image", Made::default(), false);
    assert!(pushed.composed().await.is_err());
}

#[tokio::test]
async fn only_the_configuration_that_the_daemon_has_is_taken() {
    // An overlay2 daemon is asked to push an image that is known by its configuration.
    let pushed = Pushed::start().await;
    let (ours, theirs) = (pushed.image("ours", "ours").await, pushed.image("theirs", "theirs").await);
    assert_eq!(pushed.put(&theirs).await, 201, "before anything is expected");
    pushed.intake.expect("image", made(&ours.config), true);
    assert_eq!(pushed.put(&theirs).await, 400);
    assert_eq!(pushed.put(&ours).await, 201);
    assert_eq!(pushed.composed().await.unwrap(), Digest::hash(b"ours"));

    // With the right configuration and another layer.
    let pushed = Pushed::start().await;
    let (ours, mixed) = (pushed.image("ours", "ours").await, pushed.image("theirs", "ours").await);
    assert_eq!(ours.config, mixed.config);
    pushed.intake.expect("image", made(&ours.config), true);
    assert_eq!(pushed.put(&mixed).await, 201);
    assert!(pushed.composed().await.unwrap_err().contains("another image was pushed"));
    // Another attempt of the daemon's begins anew.
    pushed.intake.begin("image");
    pushed.intake.expect("image", made(&ours.config), true);
    assert_eq!(pushed.put(&ours).await, 201);
    assert_eq!(pushed.composed().await.unwrap(), Digest::hash(b"ours"));
}

/// The ports of 127.0.0.1 that a process listens on.
fn ports(process: u32) -> Vec<u16> {
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{process}/fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.to_str()?.to_owned()))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let listening = rows.filter(|row| row.len() > 9 && row[3] == "0A" && sockets.iter().any(|socket| socket == row[9]));
    listening.filter_map(|row| u16::from_str_radix(row[1].strip_prefix("0100007F:")?, 16).ok()).collect()
}

#[test]
fn another_process_that_takes_all_connections_does_not_keep_the_daemon_out() {
    let engine = Engine::fresh(D28);
    let machine = Machine::with(&engine.host());
    let image = project(&machine);
    let hakobi = env!("CARGO_BIN_EXE_hakobi");
    let script = format!("ulimit -n 256; exec {hakobi} build --network host --cache ../cache --push -t {image} .");
    let mut child = machine.command("sh").args(["-c", &script]).stderr(Stdio::piped()).spawn().unwrap();
    let mut held = std::collections::VecDeque::new();
    while child.try_wait().unwrap().is_none() {
        for port in ports(child.id()) {
            for _ in 0..50 {
                held.extend(std::net::TcpStream::connect(("127.0.0.1", port)));
            }
        }
        while held.len() > 600 {
            held.pop_front();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(child.wait().unwrap().success(), "{told}");
    assert!(!held.is_empty());
}

fn own_names(engine: &Engine) -> Vec<String> {
    let names = engine.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    names.lines().filter(|name| name.contains("/hakobi-") || name.starts_with("hakobi.invalid/")).map(str::to_owned).collect()
}

fn folders(temporary: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(temporary).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn the_next_run_removes_what_a_killed_one_left() {
    let engine = Engine::fresh(D28);
    let temporary = tempfile::tempdir().unwrap();
    let machine = Machine::with(&engine.host()).set("TMPDIR", temporary.path().to_str().unwrap());
    let image = project(&machine);
    machine.write("Dockerfile", &machine.read("Dockerfile").replace("2000000", "60000000"));
    let options = ["build", "--network", "host", "--push", "-t", &image, "."];
    let mut command = machine.command(env!("CARGO_BIN_EXE_hakobi"));
    let mut child = command.args(options).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while own_names(&engine).is_empty() {
        assert!(child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(120));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!own_names(&engine).is_empty() && !folders(temporary.path()).is_empty());
    // A user's image with a name of the same kind, and a folder of someone else's.
    let users = "127.0.0.1:5000/hakobi-app/image:latest";
    engine.docker(&["tag", &own_names(&engine)[0], users]);
    std::fs::create_dir(temporary.path().join("hakobi-of-the-user")).unwrap();
    // It may be a run that begins: nothing goes yet.
    machine.hakobi(&options).exits(0);
    assert!(folders(temporary.path()).len() > 1);
    for lock in folders(temporary.path()).iter().map(|folder| folder.join("lock")).filter(|lock| lock.exists()) {
        let lock = std::fs::File::options().write(true).open(lock).unwrap();
        lock.set_modified(SystemTime::now() - Duration::from_secs(600)).unwrap();
    }
    machine.hakobi(&options).exits(0);
    let left = own_names(&engine);
    engine.docker(&["rmi", users]);
    assert_eq!(left, [users]);
    assert_eq!(folders(temporary.path()), [temporary.path().join("hakobi-of-the-user")]);
}

#[test]
fn an_interrupted_build_leaves_nothing_in_the_daemon() {
    for name in [D28, C28] {
        let engine = Engine::fresh(name);
        let temporary = tempfile::tempdir().unwrap();
        let machine = Machine::with(&engine.host()).set("TMPDIR", temporary.path().to_str().unwrap());
        let image = project(&machine);
        machine.write("Dockerfile", &machine.read("Dockerfile").replace("2000000", "60000000"));
        for milliseconds in [1500, 3000, 4500] {
            let options = ["build", "--network", "host", "--push", "--no-cache", "-t", &image, "."];
            let mut command = machine.command(env!("CARGO_BIN_EXE_hakobi"));
            let mut child = command.args(options).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(milliseconds));
            let asked = Instant::now();
            let _ = std::process::Command::new("kill").arg(child.id().to_string()).status();
            child.wait().unwrap();
            assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
            assert!(own_names(&engine).is_empty(), "{name}: {:?}", own_names(&engine));
            assert!(folders(temporary.path()).is_empty());
        }
    }
}
