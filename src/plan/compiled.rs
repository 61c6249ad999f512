//! The record of a compiled Dockerfile, for runs without a daemon to compile it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::record::{LARGE, Record};
use super::record_key::RecordKey;
use crate::domain::{DiffId, Digest, Hasher};

/// A compiled Dockerfile. It is valid as long as its references point to the same images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompiledRecord {
    /// The graph's bytes, in base64.
    definition: String,
    /// The image's configuration, as JSON.
    config: String,
    /// The engine that compiled it.
    pub engine: String,
    /// Tags of base images and of the frontend, with their digests.
    pub references: BTreeMap<String, Digest>,
    /// The diff IDs of the base images' layers, by the steps of the graph that name the images.
    pub images: BTreeMap<String, Vec<DiffId>>,
}

impl Record for CompiledRecord {
    const LIMIT: u64 = LARGE;

    fn is_sane(&self) -> bool {
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&self.config).is_ok()
    }
}

impl CompiledRecord {
    /// Makes a record of a graph and a configuration. Returns `None` if the configuration is not UTF-8.
    #[must_use]
    pub fn new(definition: &[u8], config: Vec<u8>) -> Option<Self> {
        let config = String::from_utf8(config).ok()?;
        let (definition, engine) = (STANDARD.encode(definition), String::new());
        Some(Self { definition, config, engine, references: BTreeMap::new(), images: BTreeMap::new() })
    }

    /// Returns the graph's bytes, or `None` if the record is damaged.
    #[must_use]
    pub fn definition(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.definition).ok()
    }

    /// Returns the image's configuration.
    #[must_use]
    pub fn config(&self) -> &[u8] {
        self.config.as_bytes()
    }
}

/// Returns the key of a compiled Dockerfile: of the files and options that the frontend reads, and the platform.
#[must_use]
pub fn compiled_key<'a>(
    platform: &str,
    files: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    options: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> RecordKey<CompiledRecord> {
    let mut hasher = Hasher::default();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    };
    part(b"hakobi compiled 1");
    part(platform.as_bytes());
    for (name, content) in files {
        part(name.as_bytes());
        // An empty ignore file differs from a missing one.
        part(if content.is_some() { b"there" } else { b"absent" });
        part(content.unwrap_or_default());
    }
    part(b"options");
    let options: BTreeMap<&str, &str> = options.into_iter().collect();
    for (name, value) in options {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    RecordKey::new(hasher.digest())
}

/// The frontend that a Dockerfile names, as far as hakobi supports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Syntax {
    /// The daemon's own frontend.
    Own,
    /// The Dockerfile frontend in this image.
    Image(String),
    /// Another frontend, which may read any files.
    Other,
}

impl Syntax {
    /// Detects a Dockerfile's frontend. `named` is the value of `BUILDKIT_SYNTAX`, which takes precedence (BuildKit
    /// `parser.DetectSyntax`). A text that may be meant as a directive counts as one.
    #[must_use]
    pub fn detect(dockerfile: &[u8], named: Option<&str>) -> Self {
        let Ok(text) = std::str::from_utf8(dockerfile) else { return Self::Other };
        let text = text.trim_start_matches('\u{feff}').trim_start();
        if text.starts_with('{') {
            return Self::Other;
        }
        let comments = text.lines().map(str::trim).take_while(|line| line.is_empty() || line.starts_with(['#', '/']));
        let mut directives = comments.filter_map(|line| {
            let (name, value) = line.trim_start_matches(['#', '/']).split_once('=')?;
            name.trim().eq_ignore_ascii_case("syntax").then(|| value.trim().to_owned())
        });
        let named = named.map(|named| named.trim().to_owned());
        let Some(syntax) = named.or_else(|| directives.next()) else { return Self::Own };
        let image = syntax.split_whitespace().next().unwrap_or_default();
        let (name, _) = image.split_once('@').unwrap_or((image, ""));
        let name = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name);
        match ["docker/dockerfile", "docker/dockerfile-upstream"].iter().any(|known| name.ends_with(known)) {
            true => Self::Image(image.to_owned()),
            false => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_of_all_that_the_frontend_is_given() {
        let key = |platform: &str, files: &[(&str, Option<&[u8]>)], options: &[(&str, &str)]| {
            compiled_key(platform, files.iter().copied(), options.iter().copied())
        };
        let files: &[(&str, Option<&[u8]>)] = &[("Dockerfile", Some(b"FROM a")), (".dockerignore", None)];
        let base = key("linux/amd64", files, &[("target", "x"), ("build-arg:A", "1")]);
        assert_eq!(base, key("linux/amd64", files, &[("build-arg:A", "1"), ("target", "x")]), "options have no order");
        assert_eq!(
            base.digest().hex(),
            "c5fbc4130c28e7011690650f820b07e3aec72a1261cc9454b869122c6d66e92a",
            "another key is another cache"
        );
        for other in [
            key("linux/arm64", files, &[("target", "x"), ("build-arg:A", "1")]),
            key("linux/amd64", files, &[("target", "x"), ("build-arg:A", "2")]),
            key("linux/amd64", files, &[("target", "x")]),
            key("linux/amd64", &[files[0], (".dockerignore", Some(b""))], &[("target", "x"), ("build-arg:A", "1")]),
            key("linux/amd64", &[("Dockerfile", Some(b"FROM b")), files[1]], &[("target", "x"), ("build-arg:A", "1")]),
        ] {
            assert_ne!(other, base);
        }
    }

    #[test]
    fn frontends_are_found_in_their_dockerfiles() {
        let of = |text: &str| Syntax::detect(text.as_bytes(), None);
        let image = |name: &str| Syntax::Image(name.to_owned());
        assert_eq!(of("FROM a\n# syntax=docker/dockerfile:1\n"), Syntax::Own);
        assert_eq!(of("# syntax=docker/dockerfile:1\nFROM a\n"), image("docker/dockerfile:1"));
        assert_eq!(of("\u{feff}#!/usr/bin/x\n# escape=`\n#SYNTAX = reg:5000/docker/dockerfile:1@sha256:1 x\n"), {
            image("reg:5000/docker/dockerfile:1@sha256:1")
        });
        assert_eq!(of("// syntax=docker/dockerfile-upstream\n"), image("docker/dockerfile-upstream"));
        assert_eq!(of("# syntax=someone/else:1\nFROM a\n"), Syntax::Other);
        assert_eq!(of("{\"syntax\": \"docker/dockerfile\"}"), Syntax::Other);
        assert_eq!(Syntax::detect(b"# syntax=someone/else\n", Some("docker/dockerfile:1.4")), image("docker/dockerfile:1.4"));
        assert_eq!(Syntax::detect(b"\xff\xfe", None), Syntax::Other);
    }
}
