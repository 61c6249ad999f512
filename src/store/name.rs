//! The names of objects. A name is plain everywhere: in a URL, in a directory of any file system, in a listing.

use std::fmt;
use std::str::FromStr;

use crate::domain::Digest;

/// Longest name, in bytes; S3 accepts 1,024 with the prefix.
const LIMIT: usize = 512;

/// A relative path of ASCII letters, digits and `._-=%+@`. Single slashes separate its parts, and no part begins with `.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

/// The error for a text that is no name.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("invalid object name `{0}`")]
pub struct InvalidName(String);

impl Name {
    /// Returns the name of the blob with this digest.
    #[must_use]
    pub fn blob(digest: &Digest) -> Self {
        Self(format!("blobs/sha256/{}", digest.hex()))
    }

    /// Returns the name of the checksums of that blob's parts.
    #[must_use]
    pub fn sums(digest: &Digest) -> Self {
        Self(format!("sums/sha256/{}", digest.hex()))
    }

    /// Returns the name of a mutable pointer of a scope. Special characters of a branch or an image are encoded, so that the
    /// pointer has a single path whatever these names are.
    #[must_use]
    pub fn reference(scope: &str, name: &str) -> Self {
        Self(format!("refs/{}/{}", encode(scope), encode(name)))
    }

    /// Returns the name of the record that a scope has under a key.
    #[must_use]
    pub fn record(scope: &str, key: &Digest) -> Self {
        Self(format!("steps/{}/{}", encode(scope), key.hex()))
    }

    /// Returns the name of the list of records that a build of an image used on a day, in days of the Unix epoch. `build` is the digest
    /// of the list.
    #[must_use]
    pub fn used(scope: &str, image: &str, day: u64, build: &Digest) -> Self {
        Self(format!("uses/{}/{}/{day}-{}", encode(scope), encode(image), build.hex().get(..16).unwrap_or_default()))
    }

    /// Returns the scope and the image of a list of used records as they stand in names, with a slash between, and the build. Returns
    /// `None` for another object.
    #[must_use]
    pub fn used_by(&self) -> Option<(&str, &str)> {
        let (owner, last) = self.0.strip_prefix("uses/")?.rsplit_once('/')?;
        Some((owner, last.split_once('-')?.1))
    }

    /// Returns the day of a list of used records, in days of the Unix epoch. Returns `None` for another object.
    #[must_use]
    pub fn used_on(&self) -> Option<u64> {
        self.0.strip_prefix("uses/")?.rsplit_once('/')?.1.split_once('-')?.0.parse().ok()
    }

    /// Returns the scope and the image of a pointer as they stand in names, with a slash between. Returns `None` for another object.
    #[must_use]
    pub fn pointer_of(&self) -> Option<&str> {
        self.0.strip_prefix("refs/")
    }

    /// Returns the name of the list of blobs that `cache prune` found unused.
    #[must_use]
    pub fn marks() -> Self {
        Self("prune/marks.json".to_owned())
    }

    /// Returns the text that a part of a name stands for. A text too long for a path appears as its digest.
    #[must_use]
    pub fn decoded(part: &str) -> String {
        match part.strip_prefix('%') {
            Some(hex) if hex.len() == 64 => format!("(long) {hex}"),
            _ => percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned(),
        }
    }

    /// Returns a scope's part of names.
    #[must_use]
    pub fn scope(scope: &str) -> String {
        encode(scope)
    }

    /// Returns the scope's part of a pointer's or record's name, or `None` for an object of no scope.
    #[must_use]
    pub fn scope_part(&self) -> Option<&str> {
        let rest = ["refs/", "steps/", "uses/"].iter().find_map(|kind| self.0.strip_prefix(kind))?;
        rest.split_once('/').map(|(scope, _)| scope)
    }

    /// Returns the prefix of a scope's pointers.
    #[must_use]
    pub fn references(scope: &str) -> String {
        format!("refs/{}/", encode(scope))
    }

    /// Returns the scope and the name of a pointer, or `None` for another object. A text too long for a path appears as its digest.
    #[must_use]
    pub fn pointed(&self) -> Option<(String, String)> {
        let (scope, name) = self.0.strip_prefix("refs/")?.split_once('/')?;
        Some((Self::decoded(scope), Self::decoded(name)))
    }

    /// Returns the name of the file that says which layout the store has.
    #[must_use]
    pub fn format() -> Self {
        Self("hakobi.json".to_owned())
    }

    /// Returns the digest if this is the name of a blob, or else `None`.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        format!("sha256:{}", self.0.strip_prefix("blobs/sha256/")?).parse().ok()
    }

    /// Returns the path, without a slash before it.
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

/// Encodes a text as one part of a path. Upper case is encoded too, because some file systems ignore case.
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
    // A text too long for one part of a path (255 bytes on most file systems) is replaced by its digest.
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
