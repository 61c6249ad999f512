//! Checks a record: the files in the daemon's layer must have the content that the step's key contains. This detects a selection
//! that missed a file, and a file that changed meanwhile.

use std::collections::HashSet;

use bollard_buildkit_proto::pb;

use crate::build_context::{NodeKind, Tree};
use crate::domain::{Digest, Selector, shown};
use crate::graph::{Graph, Input, InputDependency, Op, input_dependencies};

/// The contents that a layer's files may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedContents {
    /// Only these contents.
    Only {
        /// The digests of the contents.
        contents: HashSet<Digest>,
        /// The copied files, by their paths in the source.
        copied: Vec<(String, Digest)>,
    },
    /// Any content, because a command ran, or the step unpacks an archive.
    Anything,
}

/// Returns the contents that the layer of a step may have. `tree` returns the files of an input.
#[must_use]
pub fn expected_contents<'a>(graph: &Graph, op: &Op, tree: impl Fn(&Input, &[Selector]) -> Option<&'a Tree>) -> ExpectedContents {
    let Some(pb::op::Op::File(file)) = &op.op.op else { return ExpectedContents::Anything };
    let (mut contents, mut copied) = (HashSet::new(), Vec::new());
    let mut has_archive = false;
    let all = input_dependencies(op);
    let by_content = |index: i64| {
        usize::try_from(index).ok().and_then(|index| all.get(index)).is_some_and(|used| *used != InputDependency::State)
    };
    for (input, used) in op.inputs.iter().zip(all.clone()) {
        let InputDependency::Content(selectors) = used else { continue };
        // An unchanged stage that hakobi did not look at.
        let Some(tree) = graph.op(&input.step).and_then(|_| tree(input, &selectors)) else { return ExpectedContents::Anything };
        let selected = tree.selected_paths(&selectors);
        for (path, node) in tree.iter() {
            if let NodeKind::File(content) = &node.kind {
                has_archive |= is_archive(&path);
                contents.insert(content.clone());
                if selected.contains_key(&path) {
                    copied.push((path, content.clone()));
                }
            }
        }
    }
    for action in &file.actions {
        match &action.action {
            Some(pb::file_action::Action::Mkfile(made)) => drop(contents.insert(Digest::hash(&made.data))),
            Some(pb::file_action::Action::Copy(copy)) if copy.attempt_unpack_docker_compatibility && has_archive => {
                return ExpectedContents::Anything;
            }
            // A copy out of the state below, or of a file that the step itself made.
            Some(pb::file_action::Action::Copy(_)) if !by_content(action.secondary_input) => return ExpectedContents::Anything,
            Some(pb::file_action::Action::Copy(_)) | None => {}
            Some(pb::file_action::Action::Mkdir(_) | pb::file_action::Action::Rm(_)) => {}
            #[allow(unreachable_patterns, reason = "unknown kinds of file actions")]
            Some(_) => {}
        }
    }
    ExpectedContents::Only { contents, copied }
}

/// Returns the first file of a layer with an unexpected content, or `None`.
#[must_use]
pub fn unexpected_file(layer: &Tree, expected_contents: &ExpectedContents) -> Option<String> {
    let ExpectedContents::Only { contents, .. } = expected_contents else { return None };
    layer.iter().find_map(|(path, node)| match &node.kind {
        NodeKind::File(content) if !contents.contains(content) && !is_whiteout(&path) => Some(shown(&path).into_owned()),
        _ => None,
    })
}

/// Returns the first copied file that the layer lacks: no file there has its content or its name. Returns `None` if there is none.
/// A file that another copy overwrites counts by its name.
#[must_use]
pub fn missing(layer: &Tree, expected_contents: &ExpectedContents) -> Option<String> {
    let ExpectedContents::Only { copied, .. } = expected_contents else { return None };
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let files = || {
        layer
            .iter()
            .filter_map(|(path, node)| if let NodeKind::File(content) = &node.kind { Some((path, content)) } else { None })
    };
    let contents: HashSet<&Digest> = files().map(|(_, content)| content).collect();
    let names: HashSet<String> = files().map(|(path, _)| name(&path)).collect();
    let absent = copied.iter().find(|(path, content)| !contents.contains(content) && !names.contains(&name(path)));
    absent.map(|(path, _)| path.clone())
}

/// Returns whether a file may be an archive, by its name. This covers more names than needed, but all that are common.
fn is_archive(path: &str) -> bool {
    const ENDS: [&str; 9] = [".tar", ".tgz", ".tbz", ".txz", ".gz", ".bz2", ".xz", ".zst", ".tzst"];
    let name = path.to_lowercase();
    ENDS.iter().any(|end| name.ends_with(end))
}

fn is_whiteout(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.starts_with(".wh."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build_context::Node;

    #[test]
    fn a_file_of_other_bytes_is_told() {
        let file = |content: &[u8]| Node {
            kind: NodeKind::File(Digest::hash(content)),
            mode: 0o644,
            owner: (0, 0),
            xattrs: Default::default(),
        };
        let mut layer = Tree::default();
        layer.insert("app/a", file(b"a"));
        layer.insert("app/.wh.gone", file(b""));
        let only = |contents: &[&[u8]]| ExpectedContents::Only {
            contents: contents.iter().map(|content| Digest::hash(content)).collect(),
            copied: contents
                .iter()
                .map(|content| (String::from_utf8_lossy(content).into_owned(), Digest::hash(content)))
                .collect(),
        };
        assert_eq!(unexpected_file(&layer, &only(&[b"a", b"b"])), None);
        assert_eq!(unexpected_file(&layer, &only(&[b"b"])), Some("app/a".to_owned()));
        assert_eq!(unexpected_file(&layer, &ExpectedContents::Anything), None);
        assert_eq!(missing(&layer, &only(&[b"a"])), None);
        assert_eq!(missing(&layer, &only(&[b"a", b"b"])), Some("b".to_owned()));
    }
}
