//! BuildKit in the daemon, through its own gRPC API: hakobi is a gateway client of it, as buildx is.
//!
//! [`BuildKit`] is the connection, [`Session`] what the daemon may ask of us while it builds (files, credentials,
//! secrets, agents), [`Gateway`] the bridge of one running build: compile a Dockerfile, solve a graph, look into results.

mod cache_option;
mod connect;
#[cfg(test)]
mod direct_tests;
mod gateway;
mod session;
mod solve;
mod status;

pub use bollard_buildkit_proto::pb;
pub use cache_option::CacheOption;
pub use connect::BuildKit;
pub use gateway::{Gateway, Reference, Solved};
pub use session::{
    ContentSource, ContentSources, CredentialSource, Credentials, ExpectedFile, LocalDirs, OutputSink, Outputs, Session,
    SessionParts, SshAgents, Uploads,
};
pub use solve::{Export, SolveOutcome, SolveRequest};
