//! What the daemon says of an image that it made, against which what it hands over is compared.

use super::{DiffId, Digest, RawManifest};

/// An image that the daemon made, or has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// Its manifest's or its configuration's digest, or both: overlay2 engines know only the latter.
    pub digests: Vec<Digest>,
    /// Its layers, if they have to do: a containerd store may hand over one image of an index under the index's name.
    pub diff_ids: Vec<DiffId>,
}

/// How a manifest was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// By its own digest: everything that it names is the daemon's.
    Manifest,
    /// By its configuration's: its layers are still to be compared with that.
    Config,
    /// It is another one, unless its layers are the right ones.
    None,
}

impl Made {
    /// Whether the manifest is this image's, and how that is known.
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
