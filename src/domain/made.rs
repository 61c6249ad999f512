//! The digests of an image that the daemon made. hakobi compares the image with these when the daemon hands it over.

use super::{DiffId, Digest, RawManifest};

/// An image that the daemon made, or has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// The digest of its manifest or its configuration, or both: overlay2 engines know only the latter.
    pub digests: Vec<Digest>,
    /// Its layers, if only these can identify it: a containerd store may hand over one image of an index under the index's name.
    pub diff_ids: Vec<DiffId>,
}

/// How a manifest was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// By its own digest: everything that it names is the daemon's.
    Manifest,
    /// By its configuration's digest: hakobi must still compare its layers with the configuration.
    Config,
    /// Not recognised: it is another image, unless its layers match.
    None,
}

impl Made {
    /// Returns whether the manifest belongs to this image, and how that is known.
    #[must_use]
    pub fn likeness(&self, manifest: &RawManifest) -> Likeness {
        if self.digests.contains(&manifest.digest()) {
            return Likeness::Manifest;
        }
        match manifest.manifest() {
            Ok(read) if !manifest.is_index() && self.digests.contains(&read.config.digest) => Likeness::Config,
            _ => Likeness::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Descriptor, Manifest, media_type};

    #[test]
    fn an_image_is_known_by_its_manifest_or_its_configuration() {
        let config = Digest::hash(b"config");
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            config: Descriptor::new(media_type::OCI_CONFIG, config.clone(), 6),
            layers: Vec::new(),
            annotations: [].into(),
        };
        let manifest = RawManifest::from_json(media_type::OCI_MANIFEST, &manifest).unwrap();
        let made = |digests: &[&Digest]| Made { digests: digests.iter().map(|one| (*one).clone()).collect(), diff_ids: vec![] };
        assert_eq!(made(&[&manifest.digest(), &config]).likeness(&manifest), Likeness::Manifest);
        assert_eq!(made(&[&config]).likeness(&manifest), Likeness::Config);
        assert_eq!(made(&[&Digest::hash(b"other")]).likeness(&manifest), Likeness::None);
        assert_eq!(Made::default().likeness(&manifest), Likeness::None);
    }
}
