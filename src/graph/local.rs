//! A graph with nothing but a local directory.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use prost::Message as _;

use super::rewrite::encoded;
use crate::domain::Digest;

/// Returns the graph of a directory that the session serves under this name. The daemon keeps its copy under the hint.
#[must_use]
pub fn local_source(name: &str, hint: &str) -> pb::Definition {
    let attrs = BTreeMap::from([("local.sharedkeyhint".to_owned(), hint.to_owned())]);
    let source = pb::SourceOp { identifier: format!("local://{name}"), attrs };
    let bytes = encoded(&pb::Op { op: Some(pb::op::Op::Source(source)), ..pb::Op::default() });
    let digest = Digest::hash(&bytes).to_string();
    let input = pb::Input { digest: digest.clone(), index: 0 };
    let end = pb::Op { inputs: vec![input], ..pb::Op::default() };
    let description = BTreeMap::from([("llb.customname".to_owned(), "[internal] load hakobi".to_owned())]);
    let metadata = pb::OpMetadata { description, ..pb::OpMetadata::default() };
    pb::Definition { def: vec![bytes, end.encode_to_vec()], metadata: [(digest, metadata)].into(), source: None }
}
