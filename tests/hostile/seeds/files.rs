//! Seeds in binary formats: tars, archives, and compressed streams.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use hakobi::domain::Digest;
use hakobi::layers::LayerIndex;
use serde_json::json;

use super::{Seed, seed};

pub fn seeds() -> Vec<Seed> {
    let (layer, deep) = (layer(), deep_layer());
    let mut seeds = vec![
        seed("layer", "plain", layer.clone()),
        seed("layer", "gzip", gzip(&layer)),
        seed("layer", "zstd", zstd::encode_all(&layer[..], 3).unwrap()),
        seed("layer", "deep", deep),
        seed("layer", "truncated", &layer[..700]),
        seed("layer", "truncated-gzip", {
            let whole = gzip(&layer);
            whole[..whole.len() / 2].to_vec()
        }),
        seed("index", "plain", serde_json::to_vec(&LayerIndex::from_tar(&layer[..]).unwrap()).unwrap()),
        seed(
            "index",
            "circle",
            r#"{"rows":[{"n":"a","k":"l","t":"b"},{"n":"b","k":"l","t":"a"}],"removed":["x"],"opaque":["a"]}"#,
        ),
        seed("index", "above", r#"{"rows":[{"n":"../../x"},{"s":3,"n":"/../y","k":"d","m":4095,"o":[4294967295,1]}]}"#),
        seed("index", "beyond", r#"{"rows":[{"s":9999,"n":"x"}]}"#),
        seed("index", "long", format!(r#"{{"rows":[{{"n":"{}"}},{{"s":4000,"n":"{}"}}]}}"#, "a/".repeat(2000), "b".repeat(96))),
        seed("index", "text", r#"{"rows":[{"n":"etc","k":"d"},{"s":3,"n":"/passwd","t":"root:x:0:0::/root:/bin/sh\n"}]}"#),
    ];
    for (name, header) in hostile_headers() {
        seeds.push(seed("layer", name, [header, vec![0; 1024]].concat()));
    }
    seeds.extend(archives(&layer));
    seeds.extend(compressed(&layer));
    seeds
}

fn header(path: &str, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_mtime(1);
    header.set_cksum();
    header
}

fn entry(tar: &mut Vec<u8>, header: &tar::Header, content: &[u8]) {
    tar.extend_from_slice(header.as_bytes());
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// A layer with every kind of entry.
fn layer() -> Vec<u8> {
    let mut tar = Vec::new();
    entry(&mut tar, &header("etc/", tar::EntryType::Directory, 0), b"");
    entry(&mut tar, &header("etc/passwd", tar::EntryType::Regular, 10), b"root:x:0:0");
    let record = b"14 uid=300000\n33 SCHILY.xattr.user.x=a\nb\x00cdefg\n";
    entry(&mut tar, &header("pax", tar::EntryType::XHeader, record.len() as u64), record);
    entry(&mut tar, &header("file", tar::EntryType::Regular, 3), b"abc");
    for (kind, target) in [(tar::EntryType::Symlink, "/etc/../file"), (tar::EntryType::Link, "./file")] {
        let mut link = header("link", kind, 0);
        link.set_link_name_literal(target).unwrap();
        link.set_cksum();
        entry(&mut tar, &link, b"");
    }
    entry(&mut tar, &header("long", tar::EntryType::GNULongName, 200), &[b'l'; 200]);
    entry(&mut tar, &header("short", tar::EntryType::Regular, 0), b"");
    entry(&mut tar, &header("etc/.wh..wh..opq", tar::EntryType::Regular, 0), b"");
    entry(&mut tar, &header("usr/.wh.gone", tar::EntryType::Regular, 0), b"");
    entry(&mut tar, &header("pipe", tar::EntryType::Fifo, 0), b"");
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// A path of many directories in a long name.
fn deep_layer() -> Vec<u8> {
    let mut tar = Vec::new();
    let name = "d/".repeat(500);
    entry(&mut tar, &header("long", tar::EntryType::GNULongName, name.len() as u64), name.as_bytes());
    entry(&mut tar, &header("x", tar::EntryType::Regular, 0), b"");
    tar
}

/// Headers that lie.
fn hostile_headers() -> Vec<(&'static str, Vec<u8>)> {
    let block = |header: tar::Header| header.as_bytes().to_vec();
    let base256 = |bytes: [u8; 12]| {
        let mut huge = header("huge", tar::EntryType::Regular, 0);
        huge.as_mut_bytes()[124..136].copy_from_slice(&bytes);
        huge.set_cksum();
        block(huge)
    };
    let pax = |record: &str| {
        let mut tar = Vec::new();
        entry(&mut tar, &header("pax", tar::EntryType::XHeader, record.len() as u64), record.as_bytes());
        entry(&mut tar, &header("file", tar::EntryType::Regular, 0), b"");
        tar
    };
    vec![
        ("size-of-all-bits", base256([0xff; 12])),
        ("size-of-u64", base256([0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        ("size-of-i64", base256([0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        ("above", block(header("../../outside", tar::EntryType::Regular, 0))),
        ("absolute", block(header("/etc/../../outside", tar::EntryType::Regular, 0))),
        ("link-without-target", block(header("link", tar::EntryType::Symlink, 0))),
        ("pax-size-of-u64", pax("29 size=18446744073709551615\n")),
        ("pax-size-negative", pax("11 size=-1\n")),
        ("pax-length-of-zero", pax("0 path=x\n")),
        ("pax-length-beyond", pax("99999999999999999999 path=x\n")),
        ("pax-path-above", pax("22 path=../../outside\n")),
        ("pax-header-too-large", block(header("pax", tar::EntryType::XHeader, 1 << 30))),
    ]
}

fn archives(layer: &[u8]) -> Vec<Seed> {
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::hash(layer)]}});
    let config = config.to_string();
    let docker = json!([{"Config": "config.json", "RepoTags": ["example.com/app:v1"], "Layers": ["layer.tar"]}]).to_string();
    let plain = archive_of(&[("config.json", config.as_bytes()), ("layer.tar", layer), ("manifest.json", docker.as_bytes())]);
    let described = |media_type: &str, bytes: &[u8]| {
        json!({"mediaType": media_type, "digest": Digest::hash(bytes), "size": bytes.len(),
            "annotations": {"io.containerd.image.name": "example.com/app:v1"}})
    };
    let packed = gzip(layer);
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [described("application/vnd.oci.image.layer.v1.tar+gzip", &packed)]})
    .to_string();
    let index =
        json!({"schemaVersion": 2, "manifests": [described("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes())]})
            .to_string();
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::hash(bytes).hex());
    let layout = archive_of(&[
        (&blob(config.as_bytes()), config.as_bytes()),
        (&blob(&packed), &packed),
        (&blob(manifest.as_bytes()), manifest.as_bytes()),
        ("index.json", index.as_bytes()),
    ]);
    let wrong = archive_of(&[(&blob(b"another"), layer), ("manifest.json", docker.as_bytes())]);
    let names =
        archive_of(&[("../config.json", config.as_bytes()), ("manifest.json", b"[{\"Config\":\"../../x\",\"Layers\":[\"/\"]}]")]);
    let deep = "[".repeat(5000);
    let deep = archive_of(&[("manifest.json", deep.as_bytes())]);
    let own = Digest::hash(b"x").to_string();
    let circle = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{own}","size":18446744073709551615}}]}}"#);
    let circle = archive_of(&[("index.json", circle.as_bytes()), (&blob(b"x"), b"{}")]);
    vec![
        seed("archive", "docker", plain.clone()),
        seed("archive", "docker-gzip", gzip(&plain)),
        seed("archive", "layout", layout.clone()),
        seed("archive", "layout-zstd", zstd::encode_all(&layout[..], 3).unwrap()),
        seed("archive", "wrong-digest", wrong),
        seed("archive", "names-above", names),
        seed("archive", "deep-json", deep),
        seed("archive", "absent-blob", circle),
        seed("archive", "truncated", &plain[..plain.len() / 2]),
        seed("archive", "huge-entry", hostile_headers()[1].1.clone()),
        seed("archive", "pax-size", hostile_headers()[6].1.clone()),
    ]
}

fn archive_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, bytes) in files {
        entry(&mut tar, &header(name, tar::EntryType::Regular, bytes.len() as u64), bytes);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

fn compressed(layer: &[u8]) -> Vec<Seed> {
    let zeros = vec![0; 40 << 20];
    let whole = gzip(layer);
    // The window in a frame's header: 2 to the power of 10 and the first five bits (RFC 8878, 3.1.1.1.2).
    let giant = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8][..], &[0x01, 0x00, 0x00]].concat();
    vec![
        seed("compressed", "gzip", whole.clone()),
        seed("compressed", "gzip-members", [whole.clone(), gzip(b"more")].concat()),
        seed("compressed", "gzip-bomb", gzip(&zeros)),
        seed("compressed", "gzip-truncated", &whole[..whole.len() - 9]),
        seed("compressed", "zstd", zstd::encode_all(layer, 3).unwrap()),
        seed("compressed", "zstd-bomb", zstd::encode_all(&zeros[..], 19).unwrap()),
        seed("compressed", "zstd-giant-window", giant),
        seed("compressed", "plain", "text"),
    ]
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
