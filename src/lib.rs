//! hakobi: a docker build and push for machines that start empty.
//!
//! The flow of a build, which [`pipeline`] owns: [`cli`] makes settings of flags and environment; [`push`] looks at the
//! registries; [`build`] has BuildKit compile and build, through [`engine`], with the files of [`context`]; the daemon hands
//! the image to [`endpoint`], where [`handover`] takes what is new and passes it on to [`push`] and its registries; [`save`]
//! keeps every stage's cache for the next run; [`report`] shows it all, from [`event`]s, less what is [`hidden`]. With `--strategy auto`, [`plan`] decides over
//! the compiled graph what is kept in the [`store`], and only what is open is built.
//!
//! [`domain`] has the nouns, [`graph`] BuildKit's graph as a value, [`transfer`] streams of blobs, [`archive`] `docker save`'s
//! tarballs, [`registry`] the distribution protocol and ECR, [`remote`] what `ADD` takes from elsewhere. Imports point one way; `tests/architecture.rs` holds it.

pub mod append;
pub mod archive;
pub mod aws;
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
pub mod hidden;
pub mod pipeline;
pub mod plan;
pub mod push;
pub mod redact;
pub mod registry;
pub mod remote;
pub mod report;
pub mod save;
pub mod settings;
pub mod shutdown;
pub mod store;
pub mod transfer;
