//! hakobi: a docker build and push for machines that start empty.

pub mod domain;
pub mod error;
pub mod event;
pub mod push;
pub mod registry;
pub mod settings;
pub mod transfer;
