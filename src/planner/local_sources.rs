//! Hashes the local sources of a build: directories.

use std::path::Path;
use std::sync::Arc;

use crate::build_context::{self, Difference, Selection, WalkError};
use crate::domain::Digest;
use crate::engine::buildkit::LocalDirs;
use crate::graph::Op;
use crate::plan::selection;
use crate::run::context::BuildContext;

/// How often hakobi plans a build while its sources change.
pub const PLANS: u32 = 3;

/// Hashes the files of a local source. Returns `None` if the step is no local source. The inner error says why the files are not
/// known.
pub async fn local(op: &Op, directories: &LocalDirs) -> Option<(Digest, std::result::Result<Arc<build_context::Tree>, String>)> {
    let (name, selection) = selection(op)?;
    let tree = match directories.get(&name).map(ToOwned::to_owned) {
        Some(root) => tokio::task::spawn_blocking(move || hashed(&root, &selection))
            .await
            .map_err(|error| error.to_string())
            .and_then(|hashed| hashed.map(Arc::new).map_err(|error| error.to_string())),
        None => Err(format!("{name} is not a directory on this machine")),
    };
    Some((op.digest.clone(), tree))
}

/// Hashes a directory, and tries again if it changes meanwhile.
///
/// # Errors
/// If the directory is not readable, or keeps changing.
pub fn hashed(root: &Path, selection: &Selection) -> std::result::Result<build_context::Tree, WalkError> {
    let mut tries = PLANS;
    loop {
        tries -= 1;
        match build_context::hash(root, selection) {
            Err(WalkError::Changed(_)) if tries > 0 => {}
            Err(WalkError::Read { error, .. }) if error.kind() == std::io::ErrorKind::NotFound && tries > 0 => {}
            hashed => return hashed,
        }
    }
}

/// Warns that sources changed, and says what happens next. `plans` is the number of plans that are left.
pub fn warn_moved(context: &BuildContext<'_>, difference: &Difference, plans: u32) {
    let what = match plans {
        0 => "building from the files as hakobi sends them, without saving the steps that read them",
        _ => "planning the build again",
    };
    context.events.warning(format!("the build context changed while hakobi read it ({difference}): {what}"));
}
