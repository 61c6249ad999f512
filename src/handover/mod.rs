//! Out of the daemon: it pushes an image to the loopback endpoint, and what is new in it goes on to the registries while it
//! still arrives.
//!
//! [`Known`] is what registries are known to hold already, [`Intake`] the endpoint's receiver, [`PreparedImage`] the image that
//! will be put: the daemon's, with the layers that a registry had kept as they are there.

mod archived;
mod compose;
mod intake;
mod known;
mod tag;
mod transcode;

pub use archived::composed;
pub use compose::{NewLayer, PreparedImage, out_of_space_error};
pub use intake::Intake;
pub use known::{CachedStages, JOINED_ANNOTATION, Known, KnownImage, STAGE_ANNOTATION, load, load_stages};
