//! A Docker daemon inside the test process: a model, which compiles Dockerfiles, runs graphs and exports images by its own small
//! rules, behind the interfaces of a real one (the REST API, BuildKit's gRPC services, the session). Its faults are scripted.
//!
//! It stands for a daemon with the containerd image store or with a graph driver, for one platform. It knows `FROM`, `COPY` (`--from`, `--chmod`), `RUN`
//! (see [`command`]), `ENV`, `LABEL` and `CMD`; files and directories of root's. It has no `.dockerignore`, wildcards, links, mounts,
//! secrets, other frontends, cache imports or exports, and no `docker load` or `save`: the tests on real engines have those.

pub mod bridge;
pub mod command;
pub mod compile;
pub mod control;
pub mod copy;
pub mod daemon;
pub mod dockerfile;
pub mod faults;
pub mod files;
pub mod jobs;
pub mod layers;
pub mod plain;
pub mod registry;
pub mod rest;
pub mod run;
pub mod session;

/// This machine's architecture, in Docker's word.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
