//! Images into registries: what is asked before a build, blobs while they are still arriving, manifests and tags at the end,
//! and images copied from registry to registry.

mod blobs;
mod failure;
mod history;
pub mod login;
mod preflight;
mod promote;
mod pusher;
mod tags;

pub use blobs::{PushedBlobs, RepositoryBlobs};
pub use failure::{Failure, Side};
pub use history::{History, Standing, history};
pub use preflight::{Preflight, preflight};
pub use promote::{Promotion, promote};
pub use pusher::Pusher;
pub use tags::{TagOutcome, TagState};
