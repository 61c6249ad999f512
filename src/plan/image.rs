//! Makes an image of a cached state. It completes the frontend's configuration like BuildKit's exporter
//! (`exporter/containerimage/writer.go`: `patchImageConfig`, `normalizeLayersAndHistory`).

use bollard_buildkit_proto::pb;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::record::Layer;
use crate::domain::{Digest, Platform, RawManifest, media_type, retyped};
use crate::graph::Op;

/// A manifest with its configuration.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// The manifest.
    pub manifest: RawManifest,
    /// The configuration.
    pub config: Bytes,
}

/// Makes the image of these layers. Its media types are of the same family (Docker or OCI) as those of the layers; only OCI
/// manifests get the annotations.
///
/// # Errors
/// If the configuration is no JSON object.
pub fn assemble(config: &[u8], layers: &[Layer], annotations: &Map<String, Value>) -> serde_json::Result<Assembled> {
    let mut config: Map<String, Value> = serde_json::from_slice(config)?;
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    config.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": diff_ids }));
    let mut history = match config.remove("history") {
        Some(Value::Array(history)) => history,
        _ => Vec::new(),
    };
    complete(&mut history, layers);
    if let Some(created) = history.last().and_then(|entry| entry.get("created")).cloned() {
        config.insert("created".to_owned(), created);
    }
    config.insert("history".to_owned(), Value::Array(history));
    let config = Bytes::from(serde_json::to_vec(&config)?);
    let dockers = |layer: &Layer| layer.blob.media_type.contains("docker");
    let oci = !annotations.is_empty() || !layers.iter().all(dockers) || layers.is_empty();
    let (kind, config_kind) = if oci {
        (media_type::OCI_MANIFEST, media_type::OCI_CONFIG)
    } else {
        (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG)
    };
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "config": { "mediaType": config_kind, "digest": Digest::hash(&config), "size": config.len() },
        "layers": layers.iter().map(|layer| retyped(layer.blob.clone(), oci)).collect::<Vec<_>>(),
    });
    if !annotations.is_empty() {
        manifest["annotations"] = Value::Object(annotations.clone());
    }
    Ok(Assembled { manifest: RawManifest::from_json(kind, &manifest)?, config })
}

/// Returns BuildKit's name for the layer of a step that has no entry in the history.
#[must_use]
pub fn layer_name(op: &Op, engine: &str) -> String {
    match &op.op.op {
        Some(pb::op::Op::Exec(exec)) => {
            let arguments = exec.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default();
            format!("mount / from exec {arguments}")
        }
        Some(pb::op::Op::File(_)) if engine.starts_with("20.") => "fileop target".to_owned(),
        _ => op.name.clone(),
    }
}

/// Returns the configuration with exactly one history entry for each layer, like BuildKit. BuildKit adds missing entries at the
/// end, with the names of the last layers; the last surplus entries become entries without a layer. Returns `None` if the history
/// fits already, or cannot be parsed.
#[must_use]
pub fn aligned(config: &[u8], layers: &[String]) -> Option<Vec<u8>> {
    let mut config: Map<String, Value> = serde_json::from_slice(config).ok()?;
    let mut history = match config.remove("history") {
        Some(Value::Array(history)) if history.iter().all(Value::is_object) => history,
        None | Some(Value::Null) => Vec::new(),
        Some(_) => return None,
    };
    let entries = history.iter().filter(|entry| !is_empty(entry)).count();
    if entries == layers.len() {
        return None;
    }
    let mut copied = 0;
    for entry in &mut history {
        if copied >= layers.len() {
            entry["empty_layer"] = Value::Bool(true);
        }
        copied += usize::from(!is_empty(entry));
    }
    let missing = layers.get(entries..).unwrap_or_default();
    history.extend(missing.iter().map(|name| json!({ "created_by": name, "comment": "buildkit.exporter.image.v0" })));
    config.insert("history".to_owned(), Value::Array(history));
    serde_json::to_vec(&config).ok()
}

/// Returns whether an entry of the history has no layer.
fn is_empty(entry: &Value) -> bool {
    entry.get("empty_layer").and_then(Value::as_bool).unwrap_or(false)
}

/// Makes an image with only these layers and a platform.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn bare_image(platform: &Platform, layers: &[Layer]) -> serde_json::Result<Assembled> {
    assemble(&serde_json::to_vec(platform)?, layers, &Map::new())
}

/// Sets the time of each history entry. An entry with a layer gets the layer's time, and an entry without one the time of the entry
/// before. Entries before all new layers get the time of the first of these.
fn complete(history: &mut [Value], layers: &[Layer]) {
    let created = |entry: &Value| entry.get("created").filter(|created| !created.is_null()).cloned();
    let mut next = layers.iter();
    for entry in history.iter_mut().filter(|entry| !is_empty(entry)) {
        let layer = next.next();
        if created(entry).is_none()
            && let Some(time) = layer.and_then(|layer| layer.created.clone())
        {
            entry["created"] = Value::String(time);
        }
    }
    // The first time after an entry without a time, or the last time of all.
    let (mut time, mut without) = (None, false);
    for entry in &*history {
        match created(entry) {
            Some(found) => {
                time = Some(found);
                if without {
                    break;
                }
            }
            None => without = true,
        }
    }
    let mut without = false;
    for entry in history {
        match (created(entry), &time) {
            (Some(found), _) => {
                if without {
                    time = Some(found);
                }
            }
            (None, Some(time)) => {
                without = true;
                entry["created"] = time.clone();
            }
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(config: &Value, layers: &[&str]) -> Option<Value> {
        let names: Vec<String> = layers.iter().map(|name| (*name).to_owned()).collect();
        let aligned = aligned(&serde_json::to_vec(config).unwrap(), &names)?;
        Some(serde_json::from_slice::<Value>(&aligned).unwrap()["history"].take())
    }

    #[test]
    fn history_gets_as_many_entries_as_there_are_layers() {
        // Three engines gave this history for a base image of two layers without history, with ENV and COPY on it.
        let copied = json!({ "history": [{ "created_by": "ENV", "empty_layer": true }, { "created_by": "COPY" }] });
        let made = |name: &str| json!({ "created_by": name, "comment": "buildkit.exporter.image.v0" });
        let expected = json!([copied["history"][0], copied["history"][1], made("base"), made("copy")]);
        assert_eq!(history(&copied, &["base", "base", "copy"]), Some(expected));
        assert_eq!(history(&copied, &["copy"]), None, "in line");
        assert_eq!(history(&json!({ "history": null }), &["base"]), Some(json!([made("base")])));
        // And this one for a base image of one layer with two entries.
        let many = json!({ "history": [{ "created_by": "1" }, { "created_by": "2" }, { "created_by": "COPY" }, { "created_by": "CMD", "empty_layer": true }] });
        let aligned = history(&many, &["base", "copy"]).unwrap();
        let empty: Vec<bool> = aligned.as_array().unwrap().iter().map(is_empty).collect();
        assert_eq!(empty, [false, false, true, true]);
    }
}
