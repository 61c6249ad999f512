//! BuildKit in the daemon, through its own gRPC API. hakobi is a gateway client of BuildKit, as buildx is.
//!
//! [`BuildKit`] is the connection. [`Session`] serves the daemon's requests during a build (files, credentials, secrets, agents).
//! [`Gateway`] is the bridge of one running build: it compiles a Dockerfile, solves a graph and reads results.

mod bridge;
mod cache_option;
mod connect;
mod container;
#[cfg(test)]
mod direct_tests;
mod directory;
mod gateway;
mod session;
mod solve;
mod status;

pub use bollard_buildkit_proto::pb;
pub use bridge::Reference;
pub use cache_option::CacheOption;
pub use connect::{BuildKit, CachedItem};
pub use container::{Container, ContainerMount, Process, ProcessInput, ProcessOutput};
pub use gateway::{Gateway, Solved};
pub use session::{
    ContentSource, ContentSources, CredentialSource, Credentials, ExpectedFile, LocalDirs, OutputSink, Outputs, SentTimes,
    Session, SessionParts, SshAgents, Uploads,
};
pub use solve::{Export, SolveOutcome, SolveRequest};
