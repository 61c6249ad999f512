//! Manifests, indexes, configurations and BuildKit's inline cache.

use base64::Engine as _;
use hakobi::domain::{Digest, ImageConfig, ImageRef, InlineCache, Platform, RawManifest, comparable, media_type, retyped};

/// Reads the input as each of them. What is read must be equal after it is written and read again.
pub fn manifest(input: &[u8]) {
    let media_type = RawManifest::media_type_of(input).unwrap_or_default();
    let raw = RawManifest { media_type, bytes: input.to_vec().into() };
    let (descriptor, _) = (raw.descriptor(), raw.is_index());
    assert_eq!((descriptor.digest, descriptor.size), (Digest::hash(input), input.len() as u64));
    if let Ok(manifest) = raw.manifest() {
        let again = RawManifest::from_json(&raw.media_type, &manifest).unwrap();
        let read = again.manifest().unwrap();
        assert!(read == manifest || super::has_fractions(input), "it changes when it is written: {manifest:?}");
        for layer in manifest.layers {
            assert_eq!(retyped(layer.clone(), true).digest, layer.digest);
        }
    }
    if let Ok(index) = raw.index() {
        let again = RawManifest::from_json(media_type::OCI_INDEX, &index).unwrap();
        let read = again.index().unwrap();
        assert!(read == index || super::has_fractions(input), "it changes when it is written: {index:?}");
    }
    let _ = comparable(input);
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(input)
        && let Some(text) = config.inline_cache
    {
        inline_cache(&text, config.rootfs.diff_ids.len());
    }
    inline_cache(&base64::engine::general_purpose::STANDARD.encode(input), 3);
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(reference) = text.parse::<ImageRef>() {
        assert_eq!(reference.to_string().parse().as_ref(), Ok(&reference), "{text}");
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse().as_ref(), Ok(&platform), "{text}");
    }
}

fn inline_cache(text: &str, layers: usize) {
    let Some(cache) = InlineCache::decode(text) else { return };
    let json = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let is_kept =
        |cache: &InlineCache| InlineCache::decode(&cache.encode()).as_ref() == Some(cache) || super::has_fractions(&json);
    assert!(is_kept(&cache), "it changes when it is written: {cache:?}");
    let whole = cache.completed(&vec![0; layers.min(100)], layers);
    assert!(whole.results() >= cache.results());
    let merged = cache.merge(&whole, layers);
    assert!(is_kept(&merged), "it changes when it is written: {merged:?}");
    let _ = InlineCache::joined(&[(merged, (0..layers.min(100)).collect())], &[]);
}
