//! Handmade graphs for tests.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use prost::Message;

use super::decode::{Graph, Input};
use crate::domain::Digest;

/// A handmade graph.
#[derive(Default)]
pub struct Made(pub pb::Definition);

impl Made {
    /// Adds any step.
    pub fn op(&mut self, op: &pb::Op) -> Input {
        let bytes = op.encode_to_vec();
        let step = Digest::hash(&bytes);
        if !self.0.def.contains(&bytes) {
            self.0.def.push(bytes);
        }
        Input { step, output: 0 }
    }

    /// Adds a source.
    pub fn source(&mut self, identifier: &str) -> Input {
        let source = pb::SourceOp { identifier: identifier.to_owned(), attrs: BTreeMap::new() };
        self.op(&pb::Op { op: Some(pb::op::Op::Source(source)), ..pb::Op::default() })
    }

    /// Adds a step on others.
    pub fn on(&mut self, inputs: &[&Input], op: pb::op::Op) -> Input {
        let inputs = inputs.iter().map(|input| pb::Input { digest: input.step.to_string(), index: input.output }).collect();
        let platform = pb::Platform { architecture: "amd64".to_owned(), os: "linux".to_owned(), ..pb::Platform::default() };
        self.op(&pb::Op { inputs, op: Some(op), platform: Some(platform), ..pb::Op::default() })
    }

    /// Adds a command on a state.
    pub fn command(&mut self, on: &Input, command: &str) -> Input {
        let args = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
        let meta = pb::Meta { args, cwd: "/".to_owned(), ..pb::Meta::default() };
        let root = pb::Mount { dest: "/".to_owned(), ..pb::Mount::default() };
        self.on(&[on], pb::op::Op::Exec(pb::ExecOp { meta: Some(meta), mounts: vec![root], ..pb::ExecOp::default() }))
    }

    /// Adds a copy of a path of one state onto another.
    pub fn copy(&mut self, on: &Input, from: &Input, path: &str) -> Input {
        let copy = pb::FileActionCopy { src: path.to_owned(), dest: "/copied/".to_owned(), ..Default::default() };
        let action = Some(pb::file_action::Action::Copy(copy));
        let action = pb::FileAction { input: 0, secondary_input: 1, output: 0, action };
        self.on(&[on, from], pb::op::Op::File(pb::FileOp { actions: vec![action] }))
    }

    /// Returns the whole graph.
    pub fn graph(mut self, result: &Input) -> Graph {
        let end = pb::Input { digest: result.step.to_string(), index: result.output };
        self.0.def.push(pb::Op { inputs: vec![end], ..pb::Op::default() }.encode_to_vec());
        Graph::new(self.0).expect("a graph")
    }

    /// Adds a source with attributes.
    pub fn source_with(&mut self, identifier: &str, attributes: &[(&str, &str)]) -> Input {
        let attrs = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let source = pb::SourceOp { identifier: identifier.to_owned(), attrs };
        self.op(&pb::Op { op: Some(pb::op::Op::Source(source)), ..pb::Op::default() })
    }

    /// Sets a step's name in the display, and its line in the Dockerfile.
    pub fn name(&mut self, step: &Input, name: &str, line: i32) {
        let description = BTreeMap::from([("llb.customname".to_owned(), name.to_owned())]);
        self.0.metadata.insert(step.step.to_string(), pb::OpMetadata { description, ..pb::OpMetadata::default() });
        let position = Some(pb::Position { line, character: 0 });
        let location = pb::Location { source_index: 0, ranges: vec![pb::Range { start: position, end: position }] };
        let locations = pb::Locations { locations: vec![location] };
        self.0.source.get_or_insert_default().locations.insert(step.step.to_string(), locations);
    }

    /// Sets the text of the Dockerfile.
    pub fn text(&mut self, text: &str) {
        let info = pb::SourceInfo { filename: "Dockerfile".to_owned(), data: text.as_bytes().to_vec(), ..Default::default() };
        self.0.source.get_or_insert_default().infos.push(info);
    }
}
