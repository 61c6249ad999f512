//! Tests archives that the real engines save and load, and those of skopeo and BuildKit.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hakobi::docker_archive::{
    self, ArchivedImage, Encoding, Layer, Layers, SavedImage, SavedLayer, Spooled, StoredLayer, spooled,
};
use hakobi::domain::{DiffId, Digest, ImageRef};
use hakobi::settings::Compression;
use hakobi::transfer::{BlobSource, ByteStream, Spool};
use serde_json::{Value, json};
use support::engine::{C28, D20, D28, Engine, skopeo};
use support::machine::{Machine, Run};
use support::parts::{part, unique};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

/// Keeps layers as files.
struct Files {
    directory: TempDir,
    compression: Option<Compression>,
    blobs: HashMap<Digest, Spool>,
    came: usize,
}

impl Files {
    fn new(compression: Option<Compression>) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), compression, blobs: HashMap::new(), came: 0 }
    }

    /// An image again, with the bytes of these of its layers.
    fn saved(&self, image: &ArchivedImage, with: impl Fn(usize) -> bool) -> SavedImage {
        let layer = |(place, (diff_id, descriptor)): (usize, (&DiffId, _))| {
            let descriptor: &hakobi::domain::Descriptor = descriptor;
            let blob = self.blobs[&descriptor.digest].clone();
            let blob: Option<Arc<dyn BlobSource>> = if with(place) { Some(Arc::new(blob)) } else { None };
            SavedLayer { diff_id: diff_id.clone(), descriptor: descriptor.clone(), blob }
        };
        SavedImage {
            tags: image.tags.clone(),
            config: image.config.clone(),
            layers: image.diff_ids.iter().zip(&image.layers).enumerate().map(layer).collect(),
            manifest: image.manifest.clone(),
        }
    }
}

#[async_trait]
impl Layers for Files {
    async fn layer(&mut self, layer: Layer) -> io::Result<StoredLayer> {
        self.came += 1;
        let Spooled { blob, layer: kept } = spooled(layer, self.compression, self.directory.path()).await?;
        self.blobs.insert(kept.descriptor.digest.clone(), blob);
        Ok(kept)
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

fn docker(engine: &Engine, arguments: &[&str]) -> tokio::process::Command {
    let mut command = Command::new(part("HAKOBI_TEST_DOCKER_CLI"));
    command.args(arguments).env("DOCKER_HOST", engine.host());
    command.into()
}

/// What the engine saves, read as it comes.
async fn saved_by(engine: &Engine, names: &[&str], files: &mut Files) -> Vec<ArchivedImage> {
    let mut child = docker(engine, &[&["save"], names].concat()).stdout(Stdio::piped()).spawn().unwrap();
    let images = docker_archive::read(Box::pin(child.stdout.take().unwrap()), files).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    images
}

async fn load(engine: &Engine, images: Vec<SavedImage>, encoding: Encoding) {
    let directory = tempfile::tempdir().unwrap();
    let mut stream = docker_archive::write(images, encoding, directory.path()).unwrap();
    let mut child = docker(engine, &["load"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::io::copy(&mut stream, &mut stdin).await.unwrap();
    drop(stdin);
    assert!(child.wait().await.unwrap().success(), "{encoding:?} on {}", engine.name());
}

/// The diff IDs of the daemon's image.
fn layers_of(engine: &Engine, name: &str) -> Vec<DiffId> {
    serde_json::from_str(&engine.docker(&["image", "inspect", "--format", "{{json .RootFS.Layers}}", name])).unwrap()
}

/// By name, what the daemon has.
fn inspected(engine: &Engine, names: &[&str]) -> BTreeMap<String, Vec<DiffId>> {
    names.iter().map(|name| (name.parse::<ImageRef>().unwrap().to_string(), layers_of(engine, name))).collect()
}

/// By name, what was read.
fn read(images: &[ArchivedImage]) -> BTreeMap<String, Vec<DiffId>> {
    let named =
        |image: &ArchivedImage| image.tags.iter().map(|tag| (tag.to_string(), image.diff_ids.clone())).collect::<Vec<_>>();
    images.iter().flat_map(named).collect()
}

/// Builds two images on one base, one of them with two names, and imports two with the same only layer.
fn make(engine: &Engine, machine: &Machine, names: &[String; 5]) {
    let cli = part("HAKOBI_TEST_DOCKER_CLI");
    let base = format!("{}/base/busybox:latest", part("HAKOBI_TEST_REGISTRY_OPEN"));
    let build = |file: &str, tags: &[&String]| {
        let mut command = machine.command(&cli);
        command.env("DOCKER_BUILDKIT", "1").args(["build", "--network", "host", "-f", file]);
        command.args(tags.iter().flat_map(|tag| ["-t", tag.as_str()]));
        Run::of(command.arg(".")).exits(0);
    };
    machine
        .write(
            "one",
            &format!(
                "FROM {base}\nRUN head -c 3000000 /dev/urandom > /r\nWORKDIR /w\nCOPY one /f\nCMD [\"head\", \"-1\", \"/f\"]\n"
            ),
        )
        .write("other", &format!("FROM {base}\nCOPY one /f\nENTRYPOINT [\"tail\", \"-1\", \"/f\"]\n"))
        .write("rootfs/hello", "hello");
    build("one", &[&names[0], &names[1]]);
    build("other", &[&names[2]]);
    Run::of(machine.command("tar").args(["-C", "rootfs", "-cf", "rootfs.tar", "."])).exits(0);
    for (name, change) in [(&names[3], "CMD a"), (&names[4], "CMD b")] {
        Run::of(machine.command(&cli).args(["import", "--change", change, "rootfs.tar", name])).exits(0);
    }
    assert_eq!(layers_of(engine, &names[3]), layers_of(engine, &names[4]));
}

/// An image with one layer three times, which no build makes but some tools do.
fn thrice(image: &ArchivedImage, name: &str) -> ArchivedImage {
    let mut config: Value = serde_json::from_slice(&image.config).unwrap();
    let last = image.diff_ids.len() - 1;
    let (mut diff_ids, mut layers) = (image.diff_ids.clone(), image.layers.clone());
    diff_ids.extend([image.diff_ids[last].clone(), image.diff_ids[last].clone()]);
    layers.extend([image.layers[last].clone(), image.layers[last].clone()]);
    config["rootfs"]["diff_ids"] = json!(diff_ids);
    config.as_object_mut().unwrap().remove("history");
    let tags = vec![name.parse().unwrap()];
    ArchivedImage { tags, config: config.to_string().into(), diff_ids, layers, manifest: None }
}

/// What an engine saves is read, and what is written of it loads on the same engine with nothing in it.
fn saves_and_loads(name: &'static str) {
    let engine = Engine::fresh(name);
    let machine = Machine::with(&engine.host());
    let names: [String; 5] = std::array::from_fn(|place| format!("{}:{place}", unique("archive")));
    let [one, again, other, import_a, import_b] = names.each_ref().map(String::as_str);
    make(&engine, &machine, &names);
    let all = [one, again, other, import_a, import_b];
    let ids =
        |names: &[&str]| names.iter().map(|name| engine.docker(&["inspect", "--format", "{{.Id}}", name])).collect::<Vec<_>>();

    // As they are, in gzip and in zstd.
    let mut kept: Vec<(Files, Vec<ArchivedImage>)> = Vec::new();
    for compression in [None, Some(Compression::Gzip(6)), Some(Compression::Zstd(3))] {
        let mut files = Files::new(compression);
        let images = wait(saved_by(&engine, &all, &mut files));
        assert_eq!(read(&images), inspected(&engine, &all));
        assert_eq!(images.len(), 4);
        assert_eq!(files.came, 5, "each layer once: the base, three of one, of which other has one too, that of both imports");
        kept.push((files, images));
    }
    let by_id = wait(saved_by(&engine, &[&ids(&[other])[0]], &mut Files::new(None)));
    assert_eq!(by_id[0].diff_ids, layers_of(&engine, other), "by its ID, without a name");
    let (expected, before) = (inspected(&engine, &all), ids(&all));

    // Docker 20.10 knows no zstd.
    let stored = if name == D20 { Encoding::WithoutZstd } else { Encoding::Stored };
    for ((files, images), encoding) in kept.iter().zip([Encoding::Stored, Encoding::Stored, stored]) {
        engine.wipe();
        wait(load(&engine, images.iter().map(|image| files.saved(image, |_| true)).collect(), encoding));
        assert_eq!(inspected(&engine, &all), expected);
        assert_eq!(engine.docker(&["run", "--rm", one]), machine.read("one").lines().next().unwrap());
        assert_eq!(engine.docker(&["run", "--rm", again]), machine.read("one").lines().next().unwrap());
        assert_eq!(engine.docker(&["run", "--rm", other]), machine.read("one").lines().last().unwrap());
        if name != C28 {
            assert_eq!(ids(&all), before);
        }
    }
    let (files, images) = &kept[1];
    engine.wipe();
    // A layer more than once in one image, by itself; and decompressed.
    let more = thrice(images.iter().find(|image| image.tags.len() == 1).unwrap(), "thrice:1");
    wait(load(&engine, vec![files.saved(&more, |_| true)], Encoding::WithoutZstd));
    assert_eq!(layers_of(&engine, "thrice:1"), more.diff_ids);
    let mut read_back = Files::new(None);
    let back = wait(saved_by(&engine, &["thrice:1"], &mut read_back));
    assert_eq!((&back[0].config, &back[0].diff_ids), (&more.config, &more.diff_ids));
    assert_eq!(read_back.came, more.diff_ids.len() - 2);
}

/// Layers that the daemon has are left out.
fn loads_without_what_is_there(name: &'static str) {
    let engine = Engine::fresh(name);
    let machine = Machine::with(&engine.host());
    let names: [String; 5] = std::array::from_fn(|place| format!("{}:{place}", unique("archive")));
    make(&engine, &machine, &names);
    let mut files = Files::new(Some(Compression::Gzip(6)));
    let images = wait(saved_by(&engine, &[&names[0], &names[2]], &mut files));
    let image = |name: &str| images.iter().find(|image| image.tags.contains(&name.parse().unwrap())).unwrap();
    engine.wipe();
    wait(load(&engine, vec![files.saved(image(&names[2]), |_| true)], Encoding::Stored));
    // The base is there now.
    wait(load(&engine, vec![files.saved(image(&names[0]), |place| place > 0)], Encoding::Stored));
    assert_eq!(layers_of(&engine, &names[0]), image(&names[0]).diff_ids);
    assert_eq!(engine.docker(&["run", "--rm", &names[0]]), machine.read("one").lines().next().unwrap());
}

#[test]
fn docker_20_saves_and_loads() {
    saves_and_loads(D20);
}

#[test]
fn docker_28_saves_and_loads() {
    saves_and_loads(D28);
}

#[test]
fn the_containerd_store_saves_and_loads() {
    saves_and_loads(C28);
}

#[test]
fn docker_20_has_layers_left_out() {
    loads_without_what_is_there(D20);
}

#[test]
fn docker_28_has_layers_left_out() {
    loads_without_what_is_there(D28);
}

#[test]
fn the_containerd_store_has_layers_left_out() {
    loads_without_what_is_there(C28);
}

#[test]
fn buildkit_writes_archives() {
    let engine = Engine::lock(C28);
    let machine = Machine::with(&engine.host());
    machine.write("Dockerfile", &format!("FROM {}/base/busybox:latest\nCOPY Dockerfile /f\n", part("HAKOBI_TEST_REGISTRY_OPEN")));
    for kind in ["oci", "docker"] {
        let (name, output) = (unique("buildx"), format!("type={kind},dest={kind}.tar"));
        machine.hakobi(&["build", "--network", "host", "-t", &name, "-o", &output, "."]).exits(0);
        let images = wait(read_file(&machine.folder().join(format!("{kind}.tar")), &mut Files::new(None))).unwrap();
        assert_eq!((images.len(), images[0].diff_ids.len()), (1, 2), "{kind}");
        assert_eq!(images[0].tags, [format!("{name}:latest").parse().unwrap()], "{kind}");
    }
}

async fn read_file(path: &Path, files: &mut Files) -> docker_archive::Result<Vec<ArchivedImage>> {
    docker_archive::read(Box::pin(tokio::fs::File::open(path).await.unwrap()), files).await
}

#[test]
fn skopeo_writes_archives_and_reads_ours() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let base = format!("docker://{}/base/busybox:latest", part("HAKOBI_TEST_REGISTRY_OPEN"));
    let config: Value = serde_json::from_str(&skopeo(&["inspect", "--config", &base])).unwrap();
    let expected: Vec<DiffId> = serde_json::from_value(config["rootfs"]["diff_ids"].clone()).unwrap();
    for (form, named) in [("docker-archive", true), ("oci-archive", true), ("oci-archive", false)] {
        let tar = path(&format!("{form}-{named}.tar"));
        let to = if named { format!("{form}:{tar}:example.test/app:1") } else { format!("{form}:{tar}") };
        skopeo(&["copy", "-q", &base, &to]);
        let mut files = Files::new(Some(Compression::Zstd(3)));
        let images = wait(read_file(Path::new(&tar), &mut files)).unwrap();
        assert_eq!((images.len(), &images[0].diff_ids), (1, &expected), "{form}");
        assert_eq!(images[0].tags, if named { vec!["example.test/app:1".parse().unwrap()] } else { vec![] }, "{form}");
        let ours = path("ours.tar");
        let write = async {
            let images = vec![files.saved(&images[0], |_| true)];
            let mut stream = docker_archive::write(images, Encoding::WithoutZstd, directory.path()).unwrap();
            tokio::io::copy(&mut stream, &mut tokio::fs::File::create(&ours).await.unwrap()).await.unwrap();
        };
        wait(write);
        for form in ["docker-archive", "oci-archive"] {
            let config = skopeo(&["inspect", "--config", &format!("{form}:{ours}")]);
            assert_eq!(serde_json::from_str::<Value>(&config).unwrap()["rootfs"]["diff_ids"], json!(expected), "{form}");
            skopeo(&["copy", "-q", &format!("{form}:{ours}"), &format!("dir:{}", path("out"))]);
        }
    }
}

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_large_layer_is_not_held() {
    const SIZE: u64 = 768 << 20;
    let row = |layer: &str| json!([{ "Config": "c.json", "RepoTags": ["app:1"], "Layers": [layer] }]).to_string();
    let entry = |name: &str, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_size(size);
        header.set_cksum();
        Bytes::copy_from_slice(header.as_bytes())
    };
    let zeros = |size: u64| -> ByteStream { Box::pin(tokio::io::repeat(0).take(size)) };
    let chained = |parts: Vec<ByteStream>| -> ByteStream {
        parts.into_iter().fold(Box::pin(tokio::io::empty()), |before, part| Box::pin(before.chain(part)))
    };
    let text = |text: &str| -> ByteStream { Box::pin(io::Cursor::new(text.to_owned().into_bytes())) };
    // A layer that is one file of zeros, with its end.
    let layer = || chained(vec![Box::pin(io::Cursor::new(entry("zeros", SIZE))), zeros(SIZE + 1024)]);
    let size = 512 + SIZE + 1024;
    wait(async {
        let (mut raw, mut hasher) = (layer(), hakobi::domain::Hasher::default());
        let mut buffer = vec![0; 256 << 10];
        loop {
            match raw.read(&mut buffer).await.unwrap() {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": { "diff_ids": [hasher.diff_id()] } }).to_string();
        let padded = |json: &str| format!("{json:\0<0$}", json.len().next_multiple_of(512));
        let file = |name: &str, json: &str| -> Vec<ByteStream> {
            vec![Box::pin(io::Cursor::new(entry(name, json.len() as u64))), text(&padded(json))]
        };
        let mut parts = vec![Box::pin(io::Cursor::new(entry("layer.tar", size))) as ByteStream, layer()];
        parts.extend(file("c.json", &config));
        parts.extend(file("manifest.json", &row("layer.tar")));
        let mut files = Files::new(Some(Compression::Zstd(3)));
        let images = docker_archive::read(chained(parts), &mut files).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let saved = vec![files.saved(&images[0], |_| true)];
        let mut stream = docker_archive::write(saved, Encoding::WithoutZstd, directory.path()).unwrap();
        assert!(tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap() > SIZE);
    });
    assert!(peak() < 150 << 10, "{} KiB", peak());
}
