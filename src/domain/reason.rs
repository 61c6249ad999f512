//! Reasons of steps that more than one room knows.

/// The reason of a copy that runs again only for the times of its files: it did not change.
pub const COPIED_AGAIN: &str = "copied again: a command with a cache mount compares the times of its files";
