//! hakobi: a docker build and push for machines that start empty.
//!
//! A build goes this way: [`cli`] turns flags and environment into settings. [`commands`] opens what a command needs and calls the
//! stages in order. `planner` compiles the Dockerfile, or recalls its compiled form, and looks up the steps in the cache.
//! `executor` makes the image of the plan, alone or with BuildKit. `publish` moves the image from the daemon to the registries.
//! `recorder` checks the result and writes its records. `output` reports the build. `cache` judges every fault of the store, and
//! `run` has the values that all stages share.
//!
//! Below these: [`build`] talks to the Dockerfile frontend, through [`engine`], with the files of [`build_context`]. The daemon
//! pushes the image to [`local_registry`], where [`handover`] takes the new layers and passes them to [`push`] and its registries.
//! [`save`] writes the cache of builds without a plan. [`plan`] has the pure part of planning, and [`layers`] makes layers of files
//! without a daemon.
//!
//! `mounts` has the content of cache mounts (`RUN --mount=type=cache`): how it is cut into chunks, packed and listed, the process that
//! runs in a container to read and fill a mount, what both sides say to each other, and the times with which files are sent.
//!
//! [`disk`] has disk images in the store that are fetched as they are read, and [`lazy_daemon`] Docker daemons of hakobi's own that have
//! such an image as their data root.
//!
//! [`domain`] has the basic types, [`graph`] BuildKit's graph as a value, [`store`] the objects of a cache, and [`transfer`]
//! streams of blobs. [`docker_archive`] reads and writes the tarballs of `docker save`. [`registry`] speaks the distribution
//! protocol and ECR. [`remote`] looks up the remote sources of `ADD`. Imports point one way, and no two files import each other;
//! `tests/architecture.rs` checks both.

// The future of a build contains the futures of all its stages.
#![recursion_limit = "256"]

pub mod aws;
pub mod build;
pub mod build_context;
mod cache;
pub mod ci;
pub mod cli;
pub mod commands;
pub mod debug;
pub mod disk;
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
pub mod lazy_daemon;
pub mod local_registry;
mod mounts;
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
