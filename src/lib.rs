//! hakobi: a docker build and push for machines that start empty.

pub mod build;
pub mod ci;
pub mod cli;
pub mod context;
pub mod domain;
pub mod endpoint;
pub mod engine;
pub mod error;
pub mod event;
pub mod graph;
pub mod handover;
pub mod pipeline;
pub mod push;
pub mod registry;
pub mod report;
pub mod save;
pub mod settings;
pub mod transfer;
