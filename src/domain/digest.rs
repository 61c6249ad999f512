//! Content digests. The digest of a blob and the diff ID of the tar in it have different types, so that one cannot be used as the
//! other.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The error for a text that is no digest.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("invalid sha256 digest `{text}`: expected `sha256:` and 64 lower-case hex digits")]
pub struct InvalidDigest {
    text: String,
}

macro_rules! sha256_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 32]);

        impl $name {
            /// Returns the digest of these bytes.
            #[must_use]
            pub fn hash(bytes: &[u8]) -> Self {
                Self(Sha256::digest(bytes).into())
            }

            /// Returns the same hash as a plain digest.
            #[must_use]
            pub fn as_digest(&self) -> Digest {
                Digest(self.0)
            }

            /// Returns the 64 hex digits, without the algorithm.
            #[must_use]
            pub fn hex(&self) -> String {
                let mut out = String::with_capacity(64);
                for byte in self.0 {
                    out.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
                    out.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
                }
                out
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "sha256:{}", self.hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidDigest;

            fn from_str(text: &str) -> Result<Self, InvalidDigest> {
                parse(text).map(Self).ok_or_else(|| InvalidDigest { text: text.to_owned() })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidDigest;

            fn try_from(text: String) -> Result<Self, InvalidDigest> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(digest: $name) -> Self {
                digest.to_string()
            }
        }
    };
}

sha256_newtype! {
    /// The digest of a blob in a registry or store: if the blob is compressed, of the compressed bytes.
    Digest
}
sha256_newtype! {
    /// The digest of a layer's uncompressed tar (OCI image spec, "Layer DiffID").
    DiffId
}
sha256_newtype! {
    /// The digest of a chain of layers (OCI image spec, "Layer ChainID").
    ChainId
}
sha256_newtype! {
    /// The digest of everything that a step's result depends on: two steps of the same key make the same files.
    StepKey
}
sha256_newtype! {
    /// The digest of everything that copied content depends on, if a step copies it out of another step's result.
    CopiedContentKey
}
sha256_newtype! {
    /// The digest of everything that a step's result depends on, except content copied out of other steps' results.
    PartialKey
}
sha256_newtype! {
    /// The digest of a step's operation, whatever its inputs are.
    OperationKey
}

impl ChainId {
    /// Returns the chain ID of these layers, from the base up, or `None` without layers.
    #[must_use]
    pub fn of_layers(diff_ids: &[DiffId]) -> Option<Self> {
        let (first, rest) = diff_ids.split_first()?;
        Some(rest.iter().fold(Self(first.0), |chain, diff_id| Self::hash(format!("{chain} {diff_id}").as_bytes())))
    }
}

impl Digest {
    /// Returns the digest with these 32 bytes, for compact formats.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the same hash as a diff ID, for an uncompressed blob.
    #[must_use]
    pub fn of_uncompressed(&self) -> DiffId {
        DiffId(self.0)
    }
}

/// Hashes bytes as they pass.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Hashes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the hash as the digest of a blob.
    #[must_use]
    pub fn digest(self) -> Digest {
        Digest(self.0.finalize().into())
    }

    /// Returns the hash as the key of a step.
    #[must_use]
    pub fn step_key(self) -> StepKey {
        StepKey(self.0.finalize().into())
    }

    /// Returns the hash as the key of copied content.
    #[must_use]
    pub fn copied_content_key(self) -> CopiedContentKey {
        CopiedContentKey(self.0.finalize().into())
    }

    /// Returns the hash as the key of a step without copied content.
    #[must_use]
    pub fn partial_key(self) -> PartialKey {
        PartialKey(self.0.finalize().into())
    }

    /// Returns the hash as the diff ID of an uncompressed layer.
    #[must_use]
    pub fn diff_id(self) -> DiffId {
        DiffId(self.0.finalize().into())
    }
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let hex = text.strip_prefix("sha256:")?.as_bytes();
    if hex.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(out)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_what_it_prints() {
        let digest = Digest::hash(b"");
        assert_eq!(digest.to_string(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "sha256:", "sha512:00", "e3b0", &format!("sha256:{}", "G".repeat(64)), &format!("sha256:{}", "AB".repeat(32))]
        {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
