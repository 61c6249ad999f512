//! The tag of images that the daemon hands over.

/// The endpoint's tag of the single image under a name.
pub(super) const TAG: &str = "image";
