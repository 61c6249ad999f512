//! What an object is kept under. Names are plain everywhere: in a URL, in a directory of any file system, in a listing.

use std::fmt;
use std::str::FromStr;

use crate::domain::Digest;

/// Longest name, in bytes; S3 takes 1,024 with the prefix.
const LIMIT: usize = 512;

/// A relative path of ASCII letters, digits and `._-=%+@`, whose parts are parted by single slashes and begin with none of `.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("invalid object name `{0}`")]
pub struct InvalidName(String);

impl Name {
    /// The blob of this digest.
    #[must_use]
    pub fn blob(digest: &Digest) -> Self {
        Self(format!("blobs/sha256/{}", digest.hex()))
    }

    /// The checksums of that blob's parts.
    pub(super) fn sums(digest: &Digest) -> Self {
        Self(format!("sums/sha256/{}", digest.hex()))
    }

    /// A mutable pointer of a scope. Whatever a branch or an image is called, the name stays a name of one place: what is not
    /// plain is encoded, never pasted.
    #[must_use]
    pub fn reference(scope: &str, name: &str) -> Self {
        Self(format!("refs/{}/{}", encode(scope), encode(name)))
    }

    /// The record that a scope has under a key.
    #[must_use]
    pub fn record(scope: &str, key: &Digest) -> Self {
        Self(format!("steps/{}/{}", encode(scope), key.hex()))
    }

    /// All that begins so is a scope's pointers.
    #[must_use]
    pub fn references(scope: &str) -> String {
        format!("refs/{}/", encode(scope))
    }

    /// The scope and the name, where this is a pointer. A text too long for a path is shown as what stands for it.
    #[must_use]
    pub fn pointed(&self) -> Option<(String, String)> {
        let (scope, name) = self.0.strip_prefix("refs/")?.split_once('/')?;
        let decode = |text: &str| match text.strip_prefix('%') {
            Some(hex) if hex.len() == 64 => format!("(long) {hex}"),
            _ => percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned(),
        };
        Some((decode(scope), decode(name)))
    }

    /// What the store says of its format.
    #[must_use]
    pub fn format() -> Self {
        Self("hakobi.json".to_owned())
    }

    /// The digest, where this is the name of a blob.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        format!("sha256:{}", self.0.strip_prefix("blobs/sha256/")?).parse().ok()
    }

    /// The path, without a slash before it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_plain);
        if text.len() <= LIMIT && text.split('/').all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName(text.to_owned()))
        }
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-=%+@".contains(&byte)
}

/// One part of a path that stands for exactly this text. Upper case is encoded too: some file systems do not tell it apart.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => out.push(char::from(byte)),
            b'.' if at > 0 => out.push('.'),
            _ => {
                out.push('%');
                out.push_str(&format!("{byte:02x}"));
            }
        }
    }
    // Too long for one part of a path, 255 bytes on most file systems: its digest stands for it.
    if out.is_empty() || out.len() > 200 { format!("%{}", Digest::hash(text.as_bytes()).hex()) } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_has_a_place_of_its_own() {
        let texts = ["main", "Main", "feature/a", "feature%2fa", "..", ".", "", "a b", "ä", "a/../../b", &"x".repeat(300)];
        let names: std::collections::BTreeSet<Name> = texts.iter().map(|text| Name::reference(text, "app")).collect();
        assert_eq!(names.len(), texts.len());
        for name in &names {
            assert_eq!(name.as_str().parse().as_ref(), Ok(name));
            assert_eq!(name.as_str().split('/').count(), 3, "{name}");
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_no_names() {
        for text in ["", "/etc/passwd", "a//b", "../a", "a/../b", "a/.hidden", "a\\b", "a\0b", "a b", &"a/".repeat(400)] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_name_of_a_blob_says_its_digest() {
        let digest = Digest::hash(b"layer");
        assert_eq!(Name::blob(&digest).digest(), Some(digest));
        assert_eq!(Name::format().digest(), None);
    }
}
