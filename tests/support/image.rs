//! Reads images in a registry in a form that tests can compare.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::Command;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::engine::crane;
use super::parts::{part, unique};

/// Returns one of the tests' base images.
pub fn base(name: &str) -> String {
    format!("{}/base/{name}:latest", part("HAKOBI_TEST_REGISTRY_OPEN"))
}

/// Returns an image name in the open registry that no other test and no other run uses.
pub fn unique_image(name: &str) -> String {
    format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), unique(name))
}

/// Returns every path of the flattened root with its kind, mode, owner, link target, capabilities and content.
pub fn flattened(image: &str) -> BTreeMap<String, String> {
    let output = Command::new(part("HAKOBI_TEST_CRANE")).args(["export", image, "-"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut out = BTreeMap::new();
    let mut extended = BTreeMap::new();
    // The entries are raw, because the tar crate ends the value of an extended header at a newline, which names may contain.
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

/// Returns the text of every file of the flattened root, or why the image cannot be read.
pub fn contents(image: &str) -> Result<BTreeMap<String, String>, String> {
    let output = Command::new(part("HAKOBI_TEST_CRANE")).args(["export", image, "-"]).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let mut out = BTreeMap::new();
    for entry in tar::Archive::new(&output.stdout[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if entry.header().entry_type().is_file() {
            out.insert(path, String::from_utf8_lossy(&content).into_owned());
        }
    }
    Ok(out)
}

/// Parses the records of an extended header by their lengths (POSIX pax: `LENGTH KEY=VALUE` and a newline).
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

/// Returns a name, with escapes if it is not UTF-8.
fn text(name: &[u8]) -> String {
    std::str::from_utf8(name).map_or_else(|_| name.escape_ascii().to_string(), str::to_owned)
}

/// Returns the config without times, and the history without times and without the daemon's own texts.
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

/// Returns the number of layers.
pub fn layers(image: &str) -> usize {
    let config: Value = serde_json::from_str(&crane(&["config", image])).unwrap();
    config["rootfs"]["diff_ids"].as_array().unwrap().len()
}
