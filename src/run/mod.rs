//! The values that all stages share: the context, the daemon, the transport of layers, and BuildKit's imports.

pub mod built;
pub mod context;
pub mod daemon;
pub mod imports;
pub mod leftovers;
pub mod loaded;
pub mod transport;
