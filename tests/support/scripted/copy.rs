//! Runs file operations of a graph like BuildKit's copier (`tonistiigi/fsutil` `copy`), for files and directories that root owns.

use bollard_buildkit_proto::pb;
use pb::file_action::Action;
use tonic::Status;

use super::files::{Files, Kind, Node};
use super::layers::Result;

/// Runs the actions of a file operation on its inputs. Returns the files of its output.
pub fn run(operation: &pb::FileOp, inputs: &[Files], now: i64) -> Result<Files> {
    // The numbers of actions come after those of the inputs.
    let mut states: Vec<Files> = inputs.to_vec();
    let mut out = Files::default();
    for action in &operation.actions {
        let state = |index: i64| match usize::try_from(index) {
            Ok(index) => states.get(index).cloned().ok_or_else(|| Status::invalid_argument("an input that is not there")),
            Err(_) => Ok(Files::default()),
        };
        let mut files = state(action.input)?;
        match &action.action {
            Some(Action::Copy(copied)) => copy(copied, &state(action.secondary_input)?, &mut files, now)?,
            Some(Action::Mkfile(made)) => {
                let mode = u32::try_from(made.mode).unwrap_or(0o644);
                files.put(made.path.trim_matches('/'), Node::file(made.data.clone(), mode, now));
            }
            Some(Action::Mkdir(made)) => files.make_directories(&made.path, now),
            _ => return Err(Status::unimplemented("the model has no such file operation")),
        }
        if action.output == 0 {
            out = files.clone();
        }
        states.push(files);
    }
    Ok(out)
}

/// Returns the paths that a copy selects in its source, with their nodes.
pub fn selected(copied: &pb::FileActionCopy, from: &Files) -> Result<Vec<(String, Node)>> {
    if copied.src.contains(['*', '?', '[']) {
        return Err(Status::unimplemented("the model has no wildcards"));
    }
    let path = copied.src.trim_matches('/');
    let missing = || Status::not_found(format!("failed to calculate checksum of ref: \"/{path}\": not found"));
    from.below(path).ok_or_else(missing)
}

fn copy(copied: &pb::FileActionCopy, from: &Files, files: &mut Files, now: i64) -> Result<()> {
    let source = copied.src.trim_matches('/');
    let name = source.rsplit('/').next().unwrap_or_default();
    let taken = selected(copied, from)?;
    let is_file = taken.first().is_some_and(|(path, node)| path.is_empty() && !node.is_directory());
    let target = copied.dest.trim_matches('/').to_owned();
    let is_folder = copied.dest.ends_with('/') || target.is_empty() || files.0.get(&target).is_some_and(Node::is_directory);
    let joined = |target: &str, name: &str| match (target, name) {
        ("", name) => name.to_owned(),
        (target, "") => target.to_owned(),
        (target, name) => format!("{target}/{name}"),
    };
    let goes_into = is_folder && (is_file || !copied.dir_copy_contents);
    // If the destination ends with a slash, it is itself one of the directories to create.
    let parents = if copied.dest.ends_with('/') { &*target } else { target.rsplit_once('/').map_or("", |(parent, _)| parent) };
    if copied.create_dest_path {
        files.make_directories(parents, now);
    }
    let target = if goes_into { joined(&target, name) } else { target };
    for (path, mut node) in taken {
        let is_root = path.is_empty();
        let path = joined(&target, &path);
        if copied.mode >= 0 {
            node.mode = copied.mode.cast_unsigned();
        }
        match files.0.get(&path) {
            // Only the root of a copied directory keeps the attributes of an existing directory.
            Some(there) if there.is_directory() && node.is_directory() && is_root => continue,
            Some(there) if there.is_directory() != node.is_directory() => {
                return Err(Status::unknown(format!("cannot copy to non-directory: /{path}")));
            }
            _ => {}
        }
        if path.is_empty() {
            continue;
        }
        if let (Kind::File(_), Some((parent, _))) = (&node.kind, path.rsplit_once('/')) {
            files.make_directories(parent, now);
        }
        files.0.insert(path, node);
    }
    Ok(())
}
