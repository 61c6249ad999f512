//! Moves an image from the daemon or the cache into registries, directories and files.

pub mod outputs;
pub mod release;
pub mod unpack;
