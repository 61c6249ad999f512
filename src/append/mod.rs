//! Layers of files alone, made without what they lie on.
//!
//! A base never comes down to have a few files laid on it: `index` knows which paths are there, and that is all that file operations
//! can meet. `assemble` works out what layer such an operation makes. `reach` says what given operations can meet, with `routes` for links and `packed` for archives; `skeleton` makes a layer of
//! that, on which the daemon's own copier works.

pub mod assemble;
mod index;
mod packed;
mod reach;
mod routes;
mod rows;
mod skeleton;

pub use index::{Kind, LayerIndex, Met, PathIndex, joined};
pub use packed::{Packed, packed};
pub use reach::{Open, Unsure, reach};
pub use skeleton::skeleton;
