//! Looks at files of a state with the gateway (BuildKit's `StatFile` and `ReadDir`).

use bollard_buildkit_proto::fsutil::types::Stat;
use bollard_buildkit_proto::moby::buildkit::v1::frontend as api;

use super::bridge::{Bridge, Reference};
use crate::debug::Request;

/// The directory bit of a mode, as Go writes it (`fs.ModeDir`).
const IS_DIRECTORY: u32 = 1 << 31;

/// The most directories that are read. A path with more below it counts as one that has files.
const MOST_DIRECTORIES: usize = 64;

/// Returns whether a state has a file that is not empty, at a path or below it.
pub(super) async fn has_files(client: &mut Bridge, state: &Reference, path: &str) -> Result<bool, tonic::Status> {
    let Some(stat) = stat(client, state, path).await? else { return Ok(false) };
    if stat.mode & IS_DIRECTORY == 0 {
        return Ok(true);
    }
    let mut open = vec![path.to_owned()];
    let mut read = 0;
    while let Some(directory) = open.pop() {
        read += 1;
        if read > MOST_DIRECTORIES {
            return Ok(true);
        }
        for entry in entries(client, state, &directory).await? {
            // The path of an entry is its name.
            let name = entry.path.rsplit('/').next().unwrap_or_default();
            match entry.mode & IS_DIRECTORY {
                0 if entry.size == 0 && entry.linkname.is_empty() => {}
                0 => return Ok(true),
                _ => open.push(format!("{}/{name}", directory.trim_end_matches('/'))),
            }
        }
    }
    Ok(false)
}

/// Returns the file at a path. Returns `None` if there is none.
async fn stat(client: &mut Bridge, state: &Reference, path: &str) -> Result<Option<Stat>, tonic::Status> {
    let request = api::StatFileRequest { r#ref: state.id.clone(), path: path.to_owned(), ..api::StatFileRequest::default() };
    let shown = Request::new("daemon", "POST", "buildkit", "/moby.buildkit.v1.frontend.LLBBridge/StatFile", 1);
    match shown.send(client.stat_file(request), |_| 200, |status| status.code().to_string()).await {
        Ok(answer) => Ok(answer.into_inner().stat),
        // The daemon passes on the error of its file system as text.
        Err(status) if ["no such file", "not found", "does not exist"].iter().any(|text| status.message().contains(text)) => {
            Ok(None)
        }
        Err(status) => Err(status),
    }
}

async fn entries(client: &mut Bridge, state: &Reference, directory: &str) -> Result<Vec<Stat>, tonic::Status> {
    let request =
        api::ReadDirRequest { r#ref: state.id.clone(), dir_path: directory.to_owned(), ..api::ReadDirRequest::default() };
    let shown = Request::new("daemon", "POST", "buildkit", "/moby.buildkit.v1.frontend.LLBBridge/ReadDir", 1);
    let answer = shown.send(client.read_dir(request), |_| 200, |status| status.code().to_string()).await?;
    Ok(answer.into_inner().entries)
}
