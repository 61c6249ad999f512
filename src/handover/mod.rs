//! Takes images from the daemon: it pushes them to the loopback endpoint, and hakobi uploads the new layers to the registries while
//! they still arrive.
//!
//! [`Known`] has the images that registries already have, and [`Intake`] is the endpoint's receiver. [`PreparedImage`] is the image
//! for the registries: the daemon's image, in which layers that a registry had stay as they are there.

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
