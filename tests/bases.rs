//! Tests the transfer of base images to the daemon: each goes through hakobi once, and never with a damaged byte.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use support::build::Build;
use support::engine::{C28, D20, D28, Engine, crane, skopeo};
use support::image::unique_image;
use support::machine::Machine;
use support::parts::{part, unique};

/// The build of most of these tests.
fn build(machine: &Machine) -> Build<'_> {
    Build::cached(machine).tag("app")
}

/// Makes a base image of 20 MB, which no other test has; gives its name without the registry's.
fn large_base(engine: &Engine, machine: &Machine) -> String {
    let registry = part("HAKOBI_TEST_REGISTRY_OPEN");
    let name = unique("large-base");
    machine
        .write("../base/Dockerfile", &format!("FROM {registry}/base/busybox:latest\nRUN head -c 20000000 /dev/urandom > /big\n"));
    let folder = machine.folder().join("../base").display().to_string();
    let image = format!("{registry}/{name}");
    engine.docker(&["build", "--network", "host", "-t", &image, &folder]);
    engine.docker(&["push", &image]);
    name
}

/// Where the layer of 20 MB is kept.
fn large_blob(machine: &Machine, cache: &str) -> std::path::PathBuf {
    let blobs = std::fs::read_dir(machine.folder().join(cache).join("blobs/sha256")).unwrap();
    let mut blobs = blobs.map(|entry| entry.unwrap().path());
    blobs.find(|path| path.metadata().unwrap().len() > 19_000_000).expect("the large layer")
}

/// Flips a bit of it.
fn damage(machine: &Machine, cache: &str) {
    let large = large_blob(machine, cache);
    let mut bytes = std::fs::read(&large).unwrap();
    bytes[5_000_000] ^= 1;
    std::fs::write(&large, bytes).unwrap();
}

/// A way to a registry that counts the bytes which come from there, and can be shut.
#[derive(Clone, Default)]
struct Detour {
    address: String,
    count: Arc<AtomicU64>,
    is_shut: Arc<AtomicBool>,
    /// Hakobi's requests that say this are refused.
    refused: Arc<Mutex<String>>,
}

impl Detour {
    fn to(registry: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self { address: listener.local_addr().unwrap().to_string(), ..Self::default() };
        let detour = this.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map(Result::unwrap) {
                if detour.is_shut.load(Ordering::Relaxed) {
                    continue;
                }
                let server = TcpStream::connect(&registry).unwrap();
                let (to, back) = (detour.clone(), detour.clone());
                let (client_again, server_again) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || to.pass(client, server, true));
                std::thread::spawn(move || back.pass(server_again, client_again, false));
            }
        });
        this
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream, asks: bool) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if asks && self.refuses(&buffer[..read]) {
                from.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
                break;
            }
            if !asks {
                self.count.fetch_add(read as u64, Ordering::Relaxed);
            }
            if to.write_all(&buffer[..read]).is_err() || self.is_shut.load(Ordering::Relaxed) {
                break;
            }
        }
        let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
    }

    fn refuses(&self, request: &[u8]) -> bool {
        let (request, refused) = (String::from_utf8_lossy(request), self.refused.lock().unwrap());
        !refused.is_empty() && request.contains("hakobi/") && request.contains(&*refused)
    }

    /// Bytes since this was asked last.
    fn bytes(&self) -> u64 {
        self.count.swap(0, Ordering::Relaxed)
    }
}

/// On a cold build the daemon gets base images through hakobi, which keeps them while they pass: nothing is read twice.
#[test]
fn a_base_image_is_read_once() {
    for name in [D20, D28, C28] {
        let engine = Engine::lock(name);
        let machine = Machine::with(&engine.host());
        let base = large_base(&engine, &machine);
        let detour = Detour::to(part("HAKOBI_TEST_REGISTRY_OPEN"));
        let registry = &detour.address;
        machine
            .write("Dockerfile", &format!("FROM {registry}/{base}\nRUN wc -c /big > /size\nCOPY src.txt .\nRUN cat src.txt\n"));
        let build = build(&machine).scope("main");
        let edited = |text: &str, wiped: bool| {
            machine.write("src.txt", text);
            (if wiped { build.done_on_empty(&engine) } else { build.done() }, detour.bytes())
        };
        let (cold, bytes) = edited("one", true);
        assert_eq!(cold.warnings(), [""; 0], "{name}");
        assert!((20_000_000..22_000_000).contains(&bytes), "{name}: {bytes}");
        // The daemon knows what it made, though it did not get the base by its own name.
        let (warm, bytes) = edited("two", false);
        assert_eq!(warm.misses(), ["COPY src.txt .", "RUN cat src.txt"], "{name}: {warm}");
        assert_eq!(warm.layers("restored"), 0, "{name}");
        assert!(bytes < 100_000, "{name}: {bytes}");
        let (wiped, bytes) = edited("three", true);
        assert_eq!(wiped.misses(), ["COPY src.txt .", "RUN cat src.txt"], "{name}: {wiped}");
        assert!(bytes < 100_000, "{name}: {bytes}");
        assert_eq!(engine.docker(&["run", "--rm", "app", "cat", "/size"]).trim(), "20000000 /big");
    }
}

/// Where hakobi cannot read a base's layer, the daemon pulls it itself, by whatever way it knows.
#[test]
fn a_base_image_that_hakobi_cannot_read() {
    for name in [D20, D28, C28] {
        let engine = Engine::lock(name);
        let machine = Machine::with(&engine.host());
        let base = large_base(&engine, &machine);
        let detour = Detour::to(part("HAKOBI_TEST_REGISTRY_OPEN"));
        let manifest =
            crane(&["manifest", "--platform", "linux/amd64", &format!("{}/{base}", part("HAKOBI_TEST_REGISTRY_OPEN"))]);
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        *detour.refused.lock().unwrap() = manifest["layers"][1]["digest"].as_str().unwrap().to_owned();
        machine.write("Dockerfile", &format!("FROM {}/{base}\nRUN wc -c /big\n", detour.address));
        let built = build(&machine).done_on_empty(&engine);
        assert!(built.log().contains("the daemon pulls base images itself"), "{name}: {built}");
        assert_eq!(engine.docker(&["run", "--rm", "app", "wc", "-c", "/big"]).trim(), "20000000 /big");
    }
}

/// With `--recorded-bases` a registry that is down costs nothing that the last build remembers.
#[test]
fn a_registry_that_does_not_answer() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    let base = large_base(&engine, &machine);
    let detour = Detour::to(part("HAKOBI_TEST_REGISTRY_OPEN"));
    machine.write("Dockerfile", &format!("FROM {}/{base}\nCOPY src.txt .\nRUN cat src.txt\n", detour.address));
    machine.write("src.txt", "one\n");
    let build = Build::cached(&machine).push(&unique_image("recorded"));
    build.done_on_empty(&engine);
    detour.is_shut.store(true, Ordering::Relaxed);
    let down = build.run_on_empty(&engine).exits(1);
    assert!(down.stderr.contains("--recorded-bases"), "{}", down.stderr);
    let build = build.with(&["--recorded-bases"]);
    for (text, tier, missed) in [("one\n", "unchanged", &[][..]), ("two\n", "cold", &["COPY src.txt .", "RUN cat src.txt"])] {
        machine.write("src.txt", text);
        let recorded = build.done().is(tier);
        assert!(recorded.log().contains("as in the last build (--recorded-bases)"), "{recorded}");
        assert_eq!(recorded.misses(), missed);
    }
    // What was never built has no record that could stand in.
    machine.write("Dockerfile", &format!("FROM {}/{base}\nRUN true\n", detour.address));
    build.run().exits(1);
}

/// A daemon keeps what it has got of a layer and goes on from there whoever it asks next: it must not get a damaged byte of a
/// layer that the registry has too.
#[test]
fn a_damaged_layer_does_not_stay_in_the_daemon() {
    let engine = Engine::lock(C28);
    let machine = Machine::with(&engine.host());
    let base = format!("{}/{}", part("HAKOBI_TEST_REGISTRY_OPEN"), large_base(&engine, &machine));
    machine.write("Dockerfile", &format!("FROM {base}\nRUN echo tools > /tools\nCOPY src.txt .\nRUN wc -c src.txt\n"));
    // By either way the layer would be asked for: as a state that is kept, and as a cache.
    for strategy in ["auto", "daemon"] {
        let cache = format!("../{strategy}");
        let build = Build::new(&machine).report("../report.json").tag("app").cache(&cache).scope("main").strategy(strategy);
        machine.write("src.txt", "one\n");
        build.done_on_empty(&engine);
        damage(&machine, &cache);
        machine.write("src.txt", "two\n");
        let damaged = build.done_on_empty(&engine);
        assert!(damaged.warns_of("damaged"), "{strategy}: {damaged}");
        engine.docker(&["pull", &base]);
    }
}

/// A base whose layers are kept, damaged, under a Dockerfile that is another one now: the build goes on without the store, once.
#[test]
fn a_damaged_base_under_a_new_dockerfile() {
    for name in [D20, D28, C28] {
        let engine = Engine::lock(name);
        let machine = Machine::with(&engine.host());
        let base = format!("{}/{}", part("HAKOBI_TEST_REGISTRY_OPEN"), large_base(&engine, &machine));
        let build = build(&machine).scope("main");
        machine.write("Dockerfile", &format!("FROM {base}\nRUN echo one\n"));
        build.done_on_empty(&engine);
        damage(&machine, "../cache");
        machine.write("Dockerfile", &format!("FROM {base}\nRUN wc -c /big > /size\n"));
        let damaged = build.done_on_empty(&engine);
        let restarts = damaged.warnings().iter().filter(|warning| warning.contains("restarting the build")).count();
        assert_eq!(restarts, 1, "{damaged}");
        assert_eq!(engine.docker(&["run", "--rm", "app", "cat", "/size"]).trim(), "20000000 /big");
    }
}

/// A recorded base of which the store has lost a layer is no base.
#[test]
fn a_recorded_base_that_is_lost() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    let base = large_base(&engine, &machine);
    let detour = Detour::to(part("HAKOBI_TEST_REGISTRY_OPEN"));
    machine
        .write("Dockerfile", &format!("FROM {}/{base}\nCOPY src.txt .\nRUN cat src.txt\n", detour.address))
        .write("src.txt", "one\n");
    build(&machine).done_on_empty(&engine);
    detour.is_shut.store(true, Ordering::Relaxed);
    // On the daemon that made it, whose own cache asks the registry what the base is. The graph is that of the last build, whose
    // session BuildKit must not take for this one's.
    machine.write("src.txt", "two\n");
    let recorded = build(&machine).with(&["--recorded-bases"]);
    let warm = recorded.done();
    assert_eq!(warm.misses(), ["COPY src.txt .", "RUN cat src.txt"], "{warm}");
    assert_eq!(engine.docker(&["run", "--rm", "app", "cat", "src.txt"]).trim(), "two");
    std::fs::remove_file(large_blob(&machine, "../cache")).unwrap();
    machine.write("src.txt", "three\n");
    let lost = recorded.run_on_empty(&engine).exits(1);
    assert!(lost.stderr.contains("cached layers are missing") && lost.stderr.contains(&detour.address), "{}", lost.stderr);
}

/// A base that claims another layer's diff ID: the daemon refuses it, and nothing of its paths is remembered under that name.
#[test]
fn a_base_that_lies_about_its_layers() {
    let engine = Engine::fresh(D28);
    let machine = Machine::with(&engine.host());
    let registry = part("HAKOBI_TEST_REGISTRY_OPEN");
    let base = large_base(&engine, &machine);
    let (folder, name) = (machine.folder().join("../lying"), unique_image("lying"));
    skopeo(&["copy", "--src-tls-verify=false", &format!("docker://{registry}/{base}"), &format!("dir:{}", folder.display())]);
    let mut manifest: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("manifest.json")).unwrap()).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap()[7..].to_owned();
    let text = std::fs::read_to_string(folder.join(&config)).unwrap();
    let parsed: Value = serde_json::from_str(&text).unwrap();
    let ids: Vec<&str> = parsed["rootfs"]["diff_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    // Of the same length, so that nothing else changes.
    let other = "sha256:".to_owned() + &"ab".repeat(32);
    let text = text.replace(ids[1], &other);
    let digest = hakobi::domain::Digest::hash(text.as_bytes());
    std::fs::write(folder.join(digest.hex()), &text).unwrap();
    manifest["config"]["digest"] = digest.to_string().into();
    std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    skopeo(&["copy", "--dest-tls-verify=false", &format!("dir:{}", folder.display()), &format!("docker://{name}")]);
    machine.write("Dockerfile", &format!("FROM {name}\nRUN true\n"));
    // An overlay2 daemon builds on it all the same; what it hands over is then not the image that it says it made.
    let lying = build(&machine).scope("main").run_on_empty(&engine);
    let not_saved = |line: &str| {
        line.contains("not saving a stage")
            || line.contains("failed to save this build to the cache")
                && line.contains(": failed to take the image from the daemon")
    };
    assert!(lying.code == 1 || lying.stderr.lines().any(not_saved), "{}", lying.stderr);
    let indexes = std::fs::read_dir(machine.folder().join("../cache/steps/main")).into_iter().flatten();
    let names: Vec<String> = indexes.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let blob = manifest["layers"][1]["digest"].as_str().unwrap();
    let claimed = hakobi::domain::Digest::hash(format!("hakobi layer index 2\n{blob}\n{other}").as_bytes());
    assert!(!names.contains(&claimed.hex().to_owned()), "{names:?}");
}
