//! What a run has at hand: its context, the daemon, the transport of layers, and what BuildKit imports.

pub mod built;
pub mod context;
pub mod daemon;
pub mod imports;
pub mod leftovers;
pub mod loaded;
pub mod transport;
