//! The tag that images are handed over under.

/// What the endpoint calls the one image that comes under a name.
pub(super) const TAG: &str = "image";
