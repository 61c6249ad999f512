//! Archives of images, for `docker save` and `docker load`. Both directions are streams: hakobi unpacks nothing and keeps no layer
//! in memory.
//!
//! [`read()`] accepts the forms of every engine, of skopeo and of buildx. [`write()`] makes one form that every engine accepts. The
//! caller decides where layers go: [`Layers`] gets them as they arrive, and [`spooled()`] stores them in files.

mod body;
mod contents;
mod error;
mod format;
mod images;
mod index;
mod layer;
mod listing;
mod names;
mod pax;
mod read;
mod records;
mod spooled;
mod tape;
#[cfg(test)]
mod tests;
mod write;

pub use error::{Error, Result};
pub use format::Format;
pub use images::ArchivedImage;
pub use layer::{Layer, Layers, StoredLayer};
pub use read::read;
pub use spooled::{Spooled, spooled};
pub use write::{Encoding, SavedImage, SavedLayer, write};
