//! The key of a record. Its type says which kind of record it belongs to.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use crate::domain::Digest;

/// The key of a record of this kind.
pub struct RecordKey<T> {
    digest: Digest,
    kind: PhantomData<fn() -> T>,
}

impl<T> RecordKey<T> {
    /// Returns the key with this digest. It must not be the digest of another kind's key.
    #[must_use]
    pub fn new(digest: Digest) -> Self {
        Self { digest, kind: PhantomData }
    }

    /// Returns the key of a text. The text begins with the kind of record and the version of its rules, so that records of other
    /// rules have other keys.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self::new(Digest::hash(text.as_bytes()))
    }

    /// Returns the key as a digest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

// A derived implementation would require the same trait of the record.
impl<T> Clone for RecordKey<T> {
    fn clone(&self) -> Self {
        Self::new(self.digest.clone())
    }
}

impl<T> PartialEq for RecordKey<T> {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl<T> Eq for RecordKey<T> {}

impl<T> Hash for RecordKey<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl<T> fmt::Display for RecordKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.digest.fmt(f)
    }
}

impl<T> fmt::Debug for RecordKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
