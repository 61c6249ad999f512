//! An image of a kept state: the frontend's configuration, completed as BuildKit's exporter completes it
//! (`exporter/containerimage/writer.go`: `patchImageConfig`, `normalizeLayersAndHistory`).

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::record::Layer;
use crate::domain::{Digest, Platform, RawManifest, media_type, retyped};

/// A manifest with its configuration.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// The manifest.
    pub manifest: RawManifest,
    /// The configuration.
    pub config: Bytes,
}

/// Makes the image of these layers, in the family of media types that they have; annotations are the OCI's alone.
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
        "config": { "mediaType": config_kind, "digest": Digest::of(&config), "size": config.len() },
        "layers": layers.iter().map(|layer| retyped(layer.blob.clone(), oci)).collect::<Vec<_>>(),
    });
    if !annotations.is_empty() {
        manifest["annotations"] = Value::Object(annotations.clone());
    }
    Ok(Assembled { manifest: RawManifest::from_json(kind, &manifest)?, config })
}

/// Makes an image of these layers alone, of the platform that a configuration names.
///
/// # Errors
/// If the configuration names none.
pub fn bare_image(config: &[u8], layers: &[Layer]) -> serde_json::Result<Assembled> {
    let platform: Platform = serde_json::from_slice(config)?;
    assemble(&serde_json::to_vec(&platform)?, layers, &Map::new())
}

/// Gives each entry of the history its time: a layer's is that of the layer, what makes none has the time of what comes before it,
/// and what comes before every new layer that of the first.
fn complete(history: &mut [Value], layers: &[Layer]) {
    let is_empty = |entry: &Value| entry.get("empty_layer").and_then(Value::as_bool).unwrap_or(false);
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
    // The first time behind an entry without one, or the last there is.
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
