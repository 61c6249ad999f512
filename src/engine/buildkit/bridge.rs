//! The client of the gateway's service (BuildKit's `LLBBridge`), with the name of its build in each call.

use bollard_buildkit_proto::moby::buildkit::v1::frontend as api;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::error::{Error, Result};

/// The client.
pub(super) type Bridge = LlbBridgeClient<InterceptedService<Channel, BuildId>>;

/// A state in the daemon, valid while its build runs.
pub type Reference = api::Ref;

/// Adds the build's name to each call.
#[derive(Clone)]
pub(super) struct BuildId(MetadataValue<Ascii>);

impl BuildId {
    pub(super) fn new(build: &str) -> Result<Self> {
        build.parse().map(Self).map_err(|_| Error::build("failed to send the build ID"))
    }
}

impl Interceptor for BuildId {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        request.metadata_mut().insert("buildkit-controlapi-buildid", self.0.clone());
        Ok(request)
    }
}
