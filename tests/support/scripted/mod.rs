//! A model of a Docker daemon inside the test process. It compiles Dockerfiles, runs graphs and exports images by its own small
//! rules. Its interfaces are those of a real one: the REST API, BuildKit's gRPC services, the session. Tests choose its faults.
//!
//! It acts like a daemon with the containerd image store or with a graph driver, for one platform. It supports `FROM`, `COPY`
//! (`--from`, `--chmod`), `RUN` (see [`command`]), `ENV`, `LABEL` and `CMD`, and files and directories that root owns. It has no
//! `.dockerignore`, wildcards, links, mounts, secrets, other frontends, cache imports or exports, and no `docker load` or `save`.
//! The tests on real engines cover those.

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

/// Returns this machine's architecture under Docker's name.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
