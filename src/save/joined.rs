//! Joins the caches of all stages into one, like BuildKit's own `mode=max`.
//!
//! BuildKit reads several imports in parallel. If two of them know a step, it uses the one that answers first, even if that one has
//! no result for it (`combinedCacheManager.Query`). A single import with all records avoids this.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::domain::{CacheLayer, Descriptor, DiffId, Digest, InlineCache, Manifest, RawManifest, media_type};

/// An image whose cache is joined.
pub(super) struct Part<'a> {
    pub(super) layers: &'a [Descriptor],
    pub(super) diff_ids: &'a [DiffId],
    pub(super) inline_cache: Option<&'a str>,
}

/// Returns the manifest and configuration of the joined cache, or `None` if no image has records.
pub(super) fn join(parts: &[Part<'_>]) -> Option<(RawManifest, Bytes)> {
    let mut layers: Vec<CacheLayer> = Vec::new();
    let mut descriptors: Vec<Descriptor> = Vec::new();
    let mut place_of: HashMap<(i64, Digest), usize> = HashMap::new();
    let mut caches = Vec::new();
    for part in parts {
        let Some(cache) = part.inline_cache.and_then(InlineCache::decode) else { continue };
        let mut places = Vec::with_capacity(part.layers.len());
        let mut parent = -1;
        for (layer, diff_id) in part.layers.iter().zip(part.diff_ids) {
            let place = *place_of.entry((parent, layer.digest.clone())).or_insert_with(|| {
                layers.push(CacheLayer { blob: layer.digest.clone(), parent });
                if !descriptors.iter().any(|known| known.digest == layer.digest) {
                    let annotations = BTreeMap::from([("containerd.io/uncompressed".to_owned(), diff_id.to_string())]);
                    descriptors.push(Descriptor { annotations, media_type: oci(&layer.media_type), ..layer.clone() });
                }
                layers.len() - 1
            });
            places.push(place);
            parent = i64::try_from(place).ok()?;
        }
        caches.push((cache, places));
    }
    if caches.is_empty() {
        return None;
    }
    let config = Bytes::from(InlineCache::joined(&caches, &layers)?);
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: Descriptor::new(media_type::CACHE_CONFIG, Digest::hash(&config), config.len() as u64),
        layers: descriptors,
        annotations: BTreeMap::new(),
    };
    Some((RawManifest::from_json(media_type::OCI_MANIFEST, &manifest).ok()?, config))
}

fn oci(media_type: &str) -> String {
    match media_type {
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn layers_are_shared_and_results_point_to_them() {
        let encode = |value: serde_json::Value| base64::engine::general_purpose::STANDARD.encode(value.to_string());
        let layer = |name: &str| Descriptor::new(media_type::DOCKER_LAYER_GZIP, Digest::hash(name.as_bytes()), 1);
        let diff = |name: &str| DiffId::hash(name.as_bytes());
        // The stage has the result of its step; the final image has the step only as one that its own step needs.
        let stage =
            encode(serde_json::json!([{"digest":"base"},{"digest":"make","inputs":[[{"link":0}]],"layers":[{"layer":1}]}]));
        let last = encode(serde_json::json!([
            {"digest":"base"},{"digest":"make","inputs":[[{"link":0}]]},
            {"digest":"copy","inputs":[[{"link":0}],[{"link":1}]],"layers":[{"layer":1}]},
        ]));
        let (manifest, config) = join(&[
            Part { layers: &[layer("base"), layer("out")], diff_ids: &[diff("base"), diff("out")], inline_cache: Some(&last) },
            Part { layers: &[layer("base"), layer("made")], diff_ids: &[diff("base"), diff("made")], inline_cache: Some(&stage) },
        ])
        .expect("a cache");
        let config: serde_json::Value = serde_json::from_slice(&config).expect("json");
        assert_eq!(config["layers"].as_array().map(Vec::len), Some(3));
        assert_eq!(config["layers"][2]["parent"], 0);
        let made = config["records"]
            .as_array()
            .and_then(|records| records.iter().find(|record| record["digest"] == "make"))
            .expect("there");
        assert_eq!(made["layers"][0]["layer"], 2);
        assert_eq!(manifest.manifest().expect("a manifest").layers.len(), 3);
    }
}
