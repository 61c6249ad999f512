//! hakobi: a docker build and push for machines that start empty.
//!
//! The way of a build: [`cli`] makes settings of flags and environment; [`commands`] opens what a command works with and calls the
//! stages one after the other. `planner` compiles the Dockerfile, or recalls its compiled form, and asks the cache for its steps;
//! `executor` makes the image of the plan, alone or by BuildKit; `publish` takes it from the daemon to the registries; `recorder`
//! checks what was made and remembers it; `output` shows it. `cache` judges every fault of the store, `run` holds what a run has at hand.
//!
//! Below these: [`build`] speaks with the Dockerfile frontend, through [`engine`], with the files of [`build_context`]; the daemon hands the
//! image to [`local_registry`], where [`handover`] takes what is new and passes it on to [`push`] and its registries; [`save`] keeps the
//! cache of builds without a plan. [`plan`] has the pure part of planning and [`layers`] makes layers of files without a daemon.
//!
//! [`domain`] has the nouns, [`graph`] BuildKit's graph as a value, [`store`] the objects of a cache, [`transfer`] streams of blobs,
//! [`docker_archive`] the tarballs of `docker save`, [`registry`] the distribution protocol and ECR, [`remote`] what `ADD` takes from elsewhere.
//! Imports point one way, and no two files import each other; `tests/architecture.rs` holds both.

// The futures of a build hold those of all its stages.
#![recursion_limit = "256"]

pub mod aws;
pub mod build;
pub mod build_context;
mod cache;
pub mod ci;
pub mod cli;
pub mod commands;
pub mod debug;
pub mod docker_archive;
pub mod domain;
pub mod engine;
pub mod error;
pub mod event;
mod executor;
pub mod graph;
pub mod handover;
pub mod hidden;
pub mod layers;
pub mod local_registry;
pub mod output;
pub mod plan;
mod planner;
mod publish;
pub mod push;
mod recorder;
pub mod redact;
pub mod registry;
pub mod remote;
mod run;
pub mod save;
pub mod settings;
pub mod shutdown;
pub mod store;
pub mod transfer;
