//! Archives of images, as `docker save` writes and `docker load` reads them: streams on both sides, of which nothing is
//! unpacked and no layer is held in memory.
//!
//! [`read()`] takes the forms of every engine and of skopeo and buildx; [`write()`] makes one form that every engine takes. What
//! becomes of layers is for whoever calls: [`Layers`] gets them as they come, [`spooled()`] keeps them in files.

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
