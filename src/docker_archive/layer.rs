//! Layers of an archive, and who takes them.

use async_trait::async_trait;

use super::format::Format;
use crate::domain::{Descriptor, DiffId, Digest};
use crate::transfer::ByteStream;

/// A layer of an archive, as it comes: often before anything tells which image it is of, or whether it is of any.
pub struct Layer {
    /// The digest in the entry's name, where it has one: of `bytes`, and so in archives of Docker 25 and later with the
    /// overlay2 store also the diff ID.
    pub hint: Option<Digest>,
    /// Of `bytes`.
    pub size: u64,
    /// What `bytes` are.
    pub format: Format,
    /// As they are in the archive. They end with an error where the archive breaks off or they are not those of `hint`. What
    /// is left of them is passed over, and still verified, once [`Layers::layer`] has returned.
    pub bytes: ByteStream,
}

/// What became of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLayer {
    /// Of its uncompressed bytes, which must have been hashed if this is not known by the hint.
    pub diff_id: DiffId,
    /// The blob that is kept, or was there.
    pub descriptor: Descriptor,
}

/// Where an archive's layers go.
#[async_trait]
pub trait Layers: Send {
    /// Takes the next layer. One that the hint tells to be known need not be read. The same content may come more than once,
    /// if under names that do not tell; and what comes may be of no image, which the images tell in the end.
    async fn layer(&mut self, layer: Layer) -> std::io::Result<StoredLayer>;
}
