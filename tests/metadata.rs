//! Compares images whose metadata is special with those of `docker build`, on every engine: images without layers or without
//! steps of their own, contexts that are images, and bases whose history does not match their layers.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::build::{Build, Built, NO_DAEMON};
use support::engine::{C28, D20, D28, Engine, crane, skopeo};
use support::image::{base, config, flattened, unique_image};
use support::machine::Machine;
use support::parts::unique;
use support::plain::plain_build;

/// A build on an engine with nothing in it, pushed.
fn build(engine: &Engine, machine: &Machine, image: &str, more: &[&str]) -> Built {
    Build::cached(machine).push(image).with(more).done_on_empty(engine)
}

/// What docker itself makes of the same, pushed.
fn plain(engine: &Engine, machine: &Machine, more: &[&str]) -> String {
    engine.wipe();
    let plain = unique_image("plain");
    plain_build(engine, machine, &plain, more).exits(0);
    plain
}

fn is_whole_without_layers(image: &str) {
    let manifest: Value = serde_json::from_str(&crane(&["manifest", image])).unwrap();
    assert_eq!(manifest["layers"], json!([]), "{manifest:#}");
}

/// As docker's: whether a list is empty or absent is the same.
fn without_nulls(mut config: Value) -> Value {
    config["config"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
    config
}

fn metadata_alone_is_an_image(name: &'static str) {
    let engine = Engine::fresh(name);
    let machine = Machine::with(&engine.host());
    let pushed = unique_image("nothing");
    machine.write("Dockerfile", "FROM scratch\nLABEL a=b\nENV X=y\nCMD [\"/x\"]\n");
    Build::new(&machine).tag("hakobi-nothing").run().exits(0);
    assert!(engine.docker(&["image", "inspect", "hakobi-nothing"]).contains("X=y"));
    let cached = Build::new(&machine).cache("../cache");
    cached.clone().tag("hakobi-nothing").run().exits(0);
    cached.with(&["-o", "../out"]).run().exits(0);
    assert_eq!(std::fs::read_dir(machine.home().join("out")).unwrap().count(), 0);
    build(&engine, &machine, &pushed, &[]);
    is_whole_without_layers(&pushed);
    let plain = plain(&engine, &machine, &[]);
    assert_eq!(without_nulls(config(&pushed)), without_nulls(config(&plain)));
    let again = build(&engine, &machine, &pushed, &[]).is("unchanged");
    assert_eq!(again.layers("pushed"), 0, "{again}");
    is_whole_without_layers(&pushed);
    // BuildKit's own work, handed over.
    let handed = unique_image("nothing");
    build(&engine, &machine, &handed, &["--cache-mode", "off"]);
    is_whole_without_layers(&handed);
    assert_eq!(without_nulls(config(&handed)), without_nulls(config(&plain)));
}

#[test]
fn metadata_alone_is_an_image_on_docker_20() {
    metadata_alone_is_an_image(D20);
}

#[test]
fn metadata_alone_is_an_image_on_docker_28() {
    metadata_alone_is_an_image(D28);
}

#[test]
fn metadata_alone_is_an_image_on_the_containerd_store() {
    metadata_alone_is_an_image(C28);
}

fn metadata_on_a_base_moves_nothing(name: &'static str) {
    let engine = Engine::fresh(name);
    let machine = Machine::with(&engine.host());
    let pushed = unique_image("metadata");
    machine.write("Dockerfile", &format!("FROM {}\nENV A=b\nONBUILD RUN true\nCMD [\"a\"]\n", base("busybox")));
    let first = build(&engine, &machine, &pushed, &[]).is("append");
    assert_eq!(engine.docker(&["images", "-aq"]), "", "no base came down");
    let plain = plain(&engine, &machine, &[]);
    assert_eq!((config(&pushed), flattened(&pushed)), (config(&plain), flattened(&plain)));
    let again = build(&engine, &machine, &pushed, &[]).is("unchanged");
    assert_eq!(again.layers("pushed"), 0, "{again}");
    assert_eq!(again.digest(), first.digest());
    // Without a daemon, to where nothing is yet.
    let other = unique_image("metadata");
    Build::new(&machine).cache("../cache").push(&other).on(NO_DAEMON).run().exits(0);
    assert_eq!(crane(&["digest", &other]), crane(&["digest", &pushed]));
    // Into the daemon it has to come; the second time as what is remembered.
    machine.write("Dockerfile", &format!("FROM {}\nENV A=c\n", base("busybox")));
    let load = Build::cached(&machine).tag("x").with(&["--load"]);
    load.done_on_empty(&engine);
    load.done().is("unchanged");
}

#[test]
fn metadata_on_a_base_moves_nothing_on_docker_20() {
    metadata_on_a_base_moves_nothing(D20);
}

#[test]
fn metadata_on_a_base_moves_nothing_on_docker_28() {
    metadata_on_a_base_moves_nothing(D28);
}

#[test]
fn metadata_on_a_base_moves_nothing_on_the_containerd_store() {
    metadata_on_a_base_moves_nothing(C28);
}

fn an_image_as_a_context_is_kept(name: &'static str) {
    let engine = Engine::fresh(name);
    let machine = Machine::with(&engine.host());
    let (pushed, context) = (unique_image("context"), unique_image("named"));
    crane(&["copy", &base("busybox"), &context]);
    machine.write("Dockerfile", "FROM named\nRUN echo 1 > /made\nCOPY f /f\n").write("f", "1");
    let more = ["--build-context", &format!("named=docker-image://{context}")];
    build(&engine, &machine, &pushed, &more);
    build(&engine, &machine, &pushed, &more).is("unchanged");
    let plain = plain(&engine, &machine, &more);
    assert_eq!((config(&pushed), flattened(&pushed)), (config(&plain), flattened(&plain)));
    // Another image under the tag is another base.
    crane(&["mutate", "--append", &tar(&machine), "-t", &context, &context]);
    build(&engine, &machine, &pushed, &more).is("cold");
    assert!(flattened(&pushed).contains_key("appended"));
}

/// An archive of one file that no other has.
fn tar(machine: &Machine) -> String {
    let path = machine.home().join("appended.tar");
    let mut archive = tar::Builder::new(std::fs::File::create(&path).unwrap());
    let mut header = tar::Header::new_ustar();
    let content = unique("content");
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "appended", content.as_bytes()).unwrap();
    archive.finish().unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_image_as_a_context_is_kept_on_docker_28() {
    an_image_as_a_context_is_kept(D28);
}

#[test]
fn an_image_as_a_context_is_kept_on_the_containerd_store() {
    an_image_as_a_context_is_kept(C28);
}

fn platforms_are_as_asked_for(name: &'static str) {
    let engine = Engine::fresh(name);
    let machine = Machine::with(&engine.host());
    let pushed = unique_image("platforms");
    machine.write("Dockerfile", "FROM scratch\nCOPY f /f\n").write("f", "1");
    for is_again in [false, true] {
        let built = build(&engine, &machine, &pushed, &["--platform", "linux/arm64"]);
        assert!(!built.log().contains("does not match"), "{built}");
        assert_eq!(built["images"][0]["platform"], "linux/arm64", "{built}");
        // 20.10's frontend does not know the argument.
        let built = build(&engine, &machine, &pushed, &["--build-arg", "BUILDKIT_MULTI_PLATFORM=1"]);
        assert_eq!(built["images"][0]["platform"], "linux/amd64", "{built}");
        assert!(!is_again || built.tier() == "unchanged", "{built}");
    }
}

#[test]
fn platforms_are_as_asked_for_on_docker_20() {
    platforms_are_as_asked_for(D20);
}

#[test]
fn platforms_are_as_asked_for_on_docker_28() {
    platforms_are_as_asked_for(D28);
}

#[test]
fn platforms_are_as_asked_for_on_the_containerd_store() {
    platforms_are_as_asked_for(C28);
}

#[test]
fn a_directory_in_place_of_a_stage_is_built_on() {
    let engine = Engine::fresh(D28);
    let machine = Machine::with(&engine.host());
    let pushed = unique_image("replaced");
    machine.write("Dockerfile", "FROM scratch AS replaced\nFROM replaced\nCOPY a /a\nCOPY b /b\n").write("replaced/x", "x");
    machine.write("a", "a").write("b", "b");
    let folder = machine.folder().join("replaced");
    let more = ["--build-context", &format!("replaced={}", folder.display())];
    // The same again, the last copy changed, and the first.
    for (path, content) in [("b", "b"), ("b", "b"), ("b", "changed"), ("a", "changed")] {
        machine.write(path, content);
        let built = build(&engine, &machine, &pushed, &more);
        let plain = plain(&engine, &machine, &more);
        assert_eq!((config(&pushed), flattened(&pushed)), (config(&plain), flattened(&plain)), "{built}");
    }
}

#[test]
fn a_directory_in_place_of_a_stage_is_refused_as_docker_refuses_it_on_the_containerd_store() {
    let engine = Engine::fresh(C28);
    let machine = Machine::with(&engine.host());
    machine.write("Dockerfile", "FROM scratch AS replaced\nFROM replaced\nCOPY x /a\n").write("x", "x");
    let replaced = ["--build-context", "replaced=."];
    let docker = plain_build(&engine, &machine, "x", &replaced);
    let ours = Build::new(&machine).with(&replaced).tag("x").cache("../cache").run();
    for (tool, run) in [("docker", docker), ("hakobi", ours)] {
        assert!(run.exits(1).stderr.contains("invalid image config for export: missing architecture"), "{tool}");
    }
}

#[test]
fn a_platform_may_name_the_version_of_its_system() {
    let engine = Engine::fresh(C28);
    let machine = Machine::with(&engine.host());
    let pushed = unique_image("versioned");
    machine.write("Dockerfile", "FROM scratch\nCOPY f /f\n").write("f", "1");
    let more = ["--platform", "windows(10.0.20348.1006)/amd64"];
    for tier in ["cold", "unchanged"] {
        build(&engine, &machine, &pushed, &more).is(tier);
        let plain = plain(&engine, &machine, &more);
        assert_eq!(config(&pushed), config(&plain));
    }
}

/// Pushes an image of busybox and one more layer, with this history.
fn with_history(machine: &Machine, history: &Value) -> String {
    let folder = machine.home().join("history");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    let file = |bytes: &[u8]| {
        let digest = format!("{:x}", Sha256::digest(bytes));
        std::fs::write(folder.join(&digest), bytes).unwrap();
        (format!("sha256:{digest}"), bytes.len())
    };
    let first = machine.home().join("first.tar");
    crane(&["export", &base("busybox"), first.to_str().unwrap()]);
    let layers: Vec<(String, usize)> = [&first, Path::new(&tar(machine))].map(|path| file(&std::fs::read(path).unwrap())).into();
    let mut config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|(digest, _)| digest).collect::<Vec<_>>() },
    });
    if !history.is_null() {
        config["history"] = history.clone();
    }
    let (digest, size) = file(&serde_json::to_vec(&config).unwrap());
    let of = "application/vnd.oci.image";
    let layers =
        layers.iter().map(|(digest, size)| json!({ "mediaType": format!("{of}.layer.v1.tar"), "digest": digest, "size": size }));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": format!("{of}.manifest.v1+json"),
        "config": { "mediaType": format!("{of}.config.v1+json"), "digest": digest, "size": size },
        "layers": layers.collect::<Vec<_>>(),
    });
    std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    std::fs::write(folder.join("version"), "Directory Transport Version: 1.1\n").unwrap();
    let base = unique_image("history");
    skopeo(&["copy", "--dest-tls-verify=false", &format!("dir:{}", folder.display()), &format!("docker://{base}")]);
    base
}

fn history_is_in_line_with_layers(name: &'static str) {
    let engine = Engine::fresh(name);
    let machine = Machine::with(&engine.host());
    let entries =
        |count: usize| (0..count).map(|at| json!({ "created": "2020-01-01T00:00:00Z", "created_by": format!("step {at}") }));
    for history in [Value::Null, entries(1).collect(), entries(5).collect()] {
        let base = with_history(&machine, &history);
        let pushed = unique_image("pushed");
        for steps in ["COPY f /f\n", "RUN echo 1 > /ran\nCOPY f /f\nCOPY --chown=1:2 f /g\nWORKDIR /w\n"] {
            machine.write("Dockerfile", &format!("FROM {base}\nENV A=b\n{steps}CMD [\"a\"]\n"));
            for (content, tier) in [("1", "cold"), ("1", "unchanged"), ("2", "append"), ("2", "unchanged")] {
                machine.write("f", content);
                let built = build(&engine, &machine, &pushed, &[]);
                assert_eq!(built.tier(), tier, "{history}: {built}");
                engine.docker(&["pull", "-q", &pushed]);
                assert_eq!(engine.docker(&["run", "--rm", "--network", "host", &pushed, "cat", "/f"]), content);
                if tier != "unchanged" {
                    let plain = plain(&engine, &machine, &[]);
                    assert_eq!(config(&pushed), config(&plain), "{history}, {tier}");
                }
            }
        }
    }
}

#[test]
fn history_is_in_line_with_layers_on_docker_20() {
    history_is_in_line_with_layers(D20);
}

#[test]
fn history_is_in_line_with_layers_on_docker_28() {
    history_is_in_line_with_layers(D28);
}

#[test]
fn history_is_in_line_with_layers_on_the_containerd_store() {
    history_is_in_line_with_layers(C28);
}
