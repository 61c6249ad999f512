//! Layers of files alone, made without what they lie on.
//!
//! A base never comes down to have a few files laid on it: `index` knows which paths are there, and that is all that file operations
//! can meet. `assemble` works out what layer such an operation makes.

pub mod assemble;
mod index;
mod rows;

pub use index::{Kind, LayerIndex, Met, PathIndex, joined};
