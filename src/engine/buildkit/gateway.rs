//! The gateway of one running build (BuildKit's `LLBBridge`). A client may do what a frontend may do.

use std::collections::HashMap;
use std::io;

use bollard_buildkit_proto::moby::buildkit::v1::frontend as api;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::pb;
use tonic::transport::Channel;

use super::bridge::{Bridge, BuildId, Reference};
use super::cache_option::CacheOption;
use super::container::{Container, ContainerMount};
use super::directory;
use crate::debug::Request;
use crate::error::Result;

/// The largest message that hakobi reads: a graph with its sources.
pub(super) const MESSAGE_LIMIT: usize = 64 << 20;

/// The result of a solve: one reference, or one for each platform, and the frontend's metadata.
#[derive(Debug, Clone, Default)]
pub struct Solved {
    /// The references by the frontend's key, a platform's ID. The key is empty if there is only one result.
    pub references: HashMap<String, Reference>,
    /// The frontend's metadata, such as `containerimage.config`.
    pub metadata: HashMap<String, Vec<u8>>,
}

impl Solved {
    /// Returns whether each result has its graph. A reference without an ID is the empty state of `FROM scratch`.
    #[must_use]
    pub fn has_graphs(&self) -> bool {
        self.references.values().all(|reference| reference.id.is_empty() || reference.def.is_some())
    }

    /// Returns the graph of the only reference, or of the first.
    #[must_use]
    pub fn definition(&self) -> Option<&pb::Definition> {
        self.references.values().next().and_then(|reference| reference.def.as_ref())
    }
}

/// The bridge of one build.
#[derive(Clone)]
pub struct Gateway {
    client: Bridge,
}

impl Gateway {
    pub(super) fn new(channel: Channel, build: &str) -> Result<Self> {
        let id = BuildId::new(build)?;
        let client = LlbBridgeClient::with_interceptor(channel, id).max_decoding_message_size(MESSAGE_LIMIT);
        Ok(Self { client })
    }

    /// Waits until the daemon knows the build.
    pub(super) async fn ready(&mut self) -> Result<(), tonic::Status> {
        self.client.ping(api::PingRequest {}).await.map(|_| ())
    }

    /// Runs a frontend. Without `evaluate` BuildKit executes nothing: the answer is the graph and the image's configuration.
    ///
    /// # Errors
    /// The daemon's error.
    pub async fn frontend(
        &mut self,
        name: &str,
        options: HashMap<String, String>,
        evaluate: bool,
    ) -> Result<Solved, tonic::Status> {
        self.solve(api::SolveRequest {
            frontend: name.to_owned(),
            frontend_opt: options,
            evaluate,
            ..api::SolveRequest::default()
        })
        .await
    }

    /// Compiles the Dockerfile. If the user names a frontend in BUILDKIT_SYNTAX, it replaces the daemon's own frontend, in the way
    /// that every engine supports (buildx `toSolveOpt`).
    ///
    /// # Errors
    /// The daemon's error.
    pub async fn dockerfile(&mut self, mut options: HashMap<String, String>) -> Result<Solved, tonic::Status> {
        let Some(syntax) = options.get("build-arg:BUILDKIT_SYNTAX").map(|syntax| syntax.trim().to_owned()) else {
            return self.frontend("dockerfile.v0", options, false).await;
        };
        let source = syntax.split(' ').next().unwrap_or_default().to_owned();
        options.insert("source".to_owned(), source);
        options.insert("cmdline".to_owned(), syntax);
        self.frontend("gateway.v0", options, false).await
    }

    /// Solves a graph.
    ///
    /// # Errors
    /// The daemon's error.
    pub async fn graph(
        &mut self,
        mut definition: pb::Definition,
        imports: &[CacheOption],
        evaluate: bool,
    ) -> Result<Solved, tonic::Status> {
        without_empty_locations(&mut definition);
        let cache_imports = imports
            .iter()
            .map(|import| api::CacheOptionsEntry {
                r#type: import.kind.clone(),
                attrs: import.attributes.clone().into_iter().collect(),
            })
            .collect();
        self.solve(api::SolveRequest { definition: Some(definition), cache_imports, evaluate, ..api::SolveRequest::default() })
            .await
    }

    async fn solve(&mut self, mut request: api::SolveRequest) -> Result<Solved, tonic::Status> {
        request.allow_result_return = true;
        request.allow_result_array_ref = true;
        let shown = Request::new("daemon", "POST", "buildkit", "/moby.buildkit.v1.frontend.LLBBridge/Solve", 1);
        let solved = shown.send(self.client.solve(request), |_| 200, |status| status.code().to_string()).await?;
        let result = solved.into_inner().result.unwrap_or_default();
        let single = |reference| HashMap::from([(String::new(), reference)]);
        let bare = |id| Reference { id, def: None };
        let references = match result.result {
            None => HashMap::new(),
            Some(api::result::Result::Ref(reference)) => single(reference),
            Some(api::result::Result::Refs(map)) => map.refs,
            Some(api::result::Result::RefDeprecated(id)) => single(bare(id)),
            Some(api::result::Result::RefsDeprecated(map)) => map.refs.into_iter().map(|(key, id)| (key, bare(id))).collect(),
        };
        Ok(Solved { references, metadata: result.metadata })
    }

    /// Creates a container with this root and these mounts.
    ///
    /// # Errors
    /// The daemon's error.
    pub async fn container(&self, root: &Reference, mounts: Vec<ContainerMount>) -> io::Result<Container> {
        Container::create(self.client.clone(), root, mounts).await
    }

    /// Returns whether a state has a file that is not empty, at a path or below it.
    ///
    /// # Errors
    /// The daemon's error.
    pub async fn has_files(&mut self, state: &Reference, path: &str) -> Result<bool, tonic::Status> {
        directory::has_files(&mut self.client, state, path).await
    }

    /// Ends the build: BuildKit passes the returned result to the exporters.
    pub(super) async fn finish(&mut self, result: Result<Solved, tonic::Status>) -> Result<(), tonic::Status> {
        let request = match result {
            Ok(solved) => {
                let mut references = solved.references;
                let result = match references.remove("") {
                    Some(single) if references.is_empty() => api::result::Result::Ref(single),
                    Some(single) => {
                        references.insert(String::new(), single);
                        api::result::Result::Refs(api::RefMap { refs: references })
                    }
                    None if references.is_empty() => api::result::Result::Ref(Reference::default()),
                    None => api::result::Result::Refs(api::RefMap { refs: references }),
                };
                let result = api::Result { metadata: solved.metadata, result: Some(result), ..api::Result::default() };
                api::ReturnRequest { result: Some(result), error: None }
            }
            Err(status) => api::ReturnRequest {
                result: None,
                error: Some(bollard_buildkit_proto::google::rpc::Status {
                    code: status.code() as i32,
                    message: status.message().to_owned(),
                    details: Vec::new(),
                }),
            },
        };
        self.client.r#return(request).await.map(|_| ())
    }
}

/// Removes steps without a location from a graph's source map. The encoder omits an empty message as a map's value. Docker 20.10
/// reads that as a null pointer, and the whole daemon crashes when such a step fails.
fn without_empty_locations(definition: &mut pb::Definition) {
    if let Some(source) = &mut definition.source {
        source.locations.retain(|_, locations| !locations.locations.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_is_sent_that_stands_nowhere() {
        let range = pb::Range { start: Some(pb::Position { line: 2, character: 0 }), end: None };
        let somewhere = pb::Locations { locations: vec![pb::Location { source_index: 0, ranges: vec![range] }] };
        let locations = [("a".to_owned(), somewhere), ("b".to_owned(), pb::Locations::default())].into();
        let source = pb::Source { locations, ..pb::Source::default() };
        let mut definition = pb::Definition { source: Some(source), ..pb::Definition::default() };
        without_empty_locations(&mut definition);
        let left: Vec<String> = definition.source.unwrap_or_default().locations.into_keys().collect();
        assert_eq!(left, ["a"]);
    }
}
