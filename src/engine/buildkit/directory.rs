//! Looks at files of a state with the gateway (BuildKit's `ReadDir`).

use bollard_buildkit_proto::fsutil::types::Stat;
use bollard_buildkit_proto::moby::buildkit::v1::frontend as api;

use super::bridge::{Bridge, Reference};
use crate::debug::Request;

/// The directory bit of a mode, as Go writes it (`fs.ModeDir`).
const IS_DIRECTORY: u32 = 1 << 31;

/// The most directories that are read. A path with more below it counts as one that has files.
const MOST_DIRECTORIES: usize = 64;

/// Returns whether a state has a file that is not empty at a path or below it, or leads elsewhere by a link on the way there.
pub(super) async fn has_files(client: &mut Bridge, state: &Reference, path: &str) -> Result<bool, tonic::Status> {
    let mut directory = String::new();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let entries = entries(client, state, &directory).await?;
        // The path of an entry is its name.
        let Some(entry) = entries.into_iter().find(|entry| entry.path == name) else { return Ok(false) };
        if entry.mode & IS_DIRECTORY == 0 {
            return Ok(true);
        }
        directory.push('/');
        directory.push_str(name);
    }
    let mut open = vec![directory];
    let mut read = 0;
    while let Some(directory) = open.pop() {
        read += 1;
        if read > MOST_DIRECTORIES {
            return Ok(true);
        }
        for entry in entries(client, state, &directory).await? {
            match entry.mode & IS_DIRECTORY {
                0 if entry.size == 0 && entry.linkname.is_empty() => {}
                0 => return Ok(true),
                _ => open.push(format!("{directory}/{}", entry.path)),
            }
        }
    }
    Ok(false)
}

/// Returns the files of a directory, which is the root if the path is empty.
async fn entries(client: &mut Bridge, state: &Reference, directory: &str) -> Result<Vec<Stat>, tonic::Status> {
    let dir_path = if directory.is_empty() { "/".to_owned() } else { directory.to_owned() };
    let request = api::ReadDirRequest { r#ref: state.id.clone(), dir_path, ..api::ReadDirRequest::default() };
    let shown = Request::new("daemon", "POST", "buildkit", "/moby.buildkit.v1.frontend.LLBBridge/ReadDir", 1);
    let answer = shown.send(client.read_dir(request), |_| 200, |status| status.code().to_string()).await?;
    Ok(answer.into_inner().entries)
}
