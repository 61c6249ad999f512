//! Layers of an archive, and the trait that stores them.

use async_trait::async_trait;

use super::format::Format;
use crate::domain::{Descriptor, DiffId, Digest};
use crate::transfer::ByteStream;

/// A layer from an archive. When it arrives, hakobi often does not know yet which image contains it, if any.
pub struct Layer {
    /// The digest in the entry's name, if there is one. It is the digest of `bytes`. In archives of Docker 25 and later with the
    /// overlay2 store it is therefore also the diff ID.
    pub hint: Option<Digest>,
    /// The size of `bytes`.
    pub size: u64,
    /// The format of `bytes`.
    pub format: Format,
    /// The bytes as in the archive. They end with an error if the archive breaks off or they do not match `hint`. After
    /// [`Layers::layer`] returns, hakobi skips the remaining bytes, and still verifies them.
    pub bytes: ByteStream,
}

/// A layer after it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLayer {
    /// The digest of its uncompressed bytes. If the hint does not state it, it comes from hashing the bytes.
    pub diff_id: DiffId,
    /// The stored or already existing blob.
    pub descriptor: Descriptor,
}

/// The destination of an archive's layers.
#[async_trait]
pub trait Layers: Send {
    /// Stores the next layer. Need not read it if the hint names a known layer. The same content may come more than once under
    /// different names. A layer may also belong to no image: the list of images at the end tells.
    /// if under names that do not tell; and what comes may be of no image, which the images tell in the end.
    async fn layer(&mut self, layer: Layer) -> std::io::Result<StoredLayer>;
}
