//! The way out: an image from the daemon or from the cache into registries, directories and files.

pub mod outputs;
pub mod release;
pub mod unpack;
