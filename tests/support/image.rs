//! Images in a registry, taken apart so that they can be compared.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::Command;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::engine::crane;
use super::parts::{part, unique};

/// One of the tests' base images.
pub fn base(name: &str) -> String {
    format!("{}/base/{name}:latest", part("HAKOBI_TEST_REGISTRY_OPEN"))
}

/// Returns a name in the open registry that no other test and no other run uses.
pub fn unique_image(name: &str) -> String {
    format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique(name))
}

/// Every path of the flattened root: what it is, its bits and owner, where it leads, its capabilities and what is in it.
pub fn flattened(image: &str) -> BTreeMap<String, String> {
    let output = Command::new(part("HAKOBI_TEST_CRANE")).args(["export", image, "-"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut out = BTreeMap::new();
    let mut extended = BTreeMap::new();
    // As they stand: the tar crate's own reading of extended headers ends a value at a line's end, which names may hold.
    for entry in tar::Archive::new(&output.stdout[..]).entries().unwrap().raw(true) {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        if header.entry_type() == tar::EntryType::XHeader {
            extended = pax(&content);
            continue;
        }
        let records = std::mem::take(&mut extended);
        let record = |key: &str| records.get(key).map(|value| text(value));
        let number = |key: &str| record(key).map(|value| value.parse::<u64>().unwrap());
        let path = record("path").unwrap_or_else(|| text(&entry.path_bytes())).trim_end_matches('/').to_owned();
        let link = record("linkpath").or_else(|| entry.link_name_bytes().map(|link| text(&link))).unwrap_or_default();
        let xattrs = records.iter().filter(|(key, _)| key.starts_with("SCHILY.xattr"));
        let xattrs: Vec<String> = xattrs.map(|(key, value)| format!("{key}={value:x?}")).collect();
        let what = format!(
            "{:?} {:o} {}:{} {link} {}",
            header.entry_type(),
            header.mode().unwrap() & 0o7777,
            number("uid").unwrap_or_else(|| header.uid().unwrap()),
            number("gid").unwrap_or_else(|| header.gid().unwrap()),
            xattrs.join(" ")
        );
        out.insert(path, format!("{what} {:x}", Sha256::digest(&content)));
    }
    out
}

/// The records of an extended header, each read by its length (POSIX pax: `LENGTH KEY=VALUE` and a line's end).
fn pax(mut records: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    while !records.is_empty() {
        let space = records.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&records[..space]).unwrap().parse().unwrap();
        let record = &records[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').unwrap();
        out.insert(text(&record[..equals]), record[equals + 1..].to_vec());
        records = &records[length..];
    }
    out
}

/// A name, with what is not UTF-8 in it told apart.
fn text(name: &[u8]) -> String {
    std::str::from_utf8(name).map_or_else(|_| name.escape_ascii().to_string(), str::to_owned)
}

/// The configuration less times, and the history less those and what the daemon's own words in it are.
pub fn config(image: &str) -> Value {
    let mut config: Value = serde_json::from_str(&crane(&["config", image])).unwrap();
    let object = config.as_object_mut().unwrap();
    for key in ["created", "rootfs", "moby.buildkit.buildinfo.v1", "moby.buildkit.cache.v0"] {
        object.remove(key);
    }
    for entry in object["history"].as_array_mut().unwrap() {
        entry.as_object_mut().unwrap().remove("created");
    }
    config
}

/// How many layers it has.
pub fn layers(image: &str) -> usize {
    let config: Value = serde_json::from_str(&crane(&["config", image])).unwrap();
    config["rootfs"]["diff_ids"].as_array().unwrap().len()
}
