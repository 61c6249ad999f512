//! Makes a graph whose result has only the files that steps copy out of another result.

use bollard_buildkit_proto::pb;
use prost::Message;

use super::decode::Graph;
use super::rewrite::encoded;
use crate::domain::{Digest, Selector, bytes_of};

/// Returns a graph of one step that makes a file with this text. If a daemon has the step in its cache, it has run it before.
#[must_use]
pub fn mark(text: &str) -> pb::Definition {
    let made = pb::FileActionMkFile {
        path: "/hakobi".to_owned(),
        mode: 0o644,
        data: text.as_bytes().to_vec(),
        timestamp: -1,
        ..pb::FileActionMkFile::default()
    };
    let action = Some(pb::file_action::Action::Mkfile(made));
    let action = pb::FileAction { input: -1, secondary_input: -1, output: 0, action };
    let file = pb::op::Op::File(pb::FileOp { actions: vec![action] });
    let bytes = encoded(&pb::Op { op: Some(file), ..pb::Op::default() });
    let result = pb::Input { digest: Digest::hash(&bytes).to_string(), index: 0 };
    let end = pb::Op { inputs: vec![result], ..pb::Op::default() }.encode_to_vec();
    pb::Definition { def: vec![bytes, end], ..pb::Definition::default() }
}

impl Graph {
    /// Returns the graph whose result has only these selections of this graph's result. BuildKit's own copier copies them with
    /// owners, modes and links: the first to `/0`, the next to `/1`, and so on.
    #[must_use]
    pub fn extraction(&self, selectors: &[Selector]) -> pb::Definition {
        let mut definition = self.definition().clone();
        let Some(end) = definition.def.pop().and_then(|end| pb::Op::decode(&end[..]).ok()) else { return definition };
        // The names come from texts, so they are UTF-8.
        let text = |name: &str| String::from_utf8_lossy(&bytes_of(name)).into_owned();
        let texts = |names: &[String]| names.iter().map(|name| text(name)).collect();
        let last = selectors.len().saturating_sub(1);
        let actions = selectors.iter().enumerate().map(|(place, selector)| {
            let copy = pb::FileActionCopy {
                src: text(&selector.path),
                dest: format!("/{place}/"),
                mode: -1,
                follow_symlink: selector.follow,
                create_dest_path: true,
                allow_wildcard: selector.wildcard,
                allow_empty_wildcard: true,
                timestamp: -1,
                include_patterns: texts(&selector.include),
                exclude_patterns: texts(&selector.exclude),
                required_paths: texts(&selector.required),
                ..pb::FileActionCopy::default()
            };
            // Actions are numbered after the inputs: the first action has the number after the last input.
            let place = i64::try_from(place).unwrap_or(i64::MAX);
            let output = if usize::try_from(place).is_ok_and(|place| place == last) { 0 } else { -1 };
            pb::FileAction {
                input: if place == 0 { -1 } else { place },
                secondary_input: 0,
                output,
                action: Some(pb::file_action::Action::Copy(copy)),
            }
        });
        let copied = pb::Op {
            inputs: end.inputs,
            op: Some(pb::op::Op::File(pb::FileOp { actions: actions.collect() })),
            platform: self.op(&self.result().step).and_then(|op| op.op.platform.clone()),
            ..pb::Op::default()
        };
        let bytes = encoded(&copied);
        let result = pb::Input { digest: Digest::hash(&bytes).to_string(), index: 0 };
        definition.def.push(bytes);
        definition.def.push(pb::Op { inputs: vec![result], ..pb::Op::default() }.encode_to_vec());
        definition
    }
}
