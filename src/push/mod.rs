//! Pushes images to registries: checks before a build, blobs while they still arrive, and manifests and tags at the end. It also
//! copies images between registries.

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
