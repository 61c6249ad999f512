//! The times with which the context is sent to commands with cache mounts.

use std::io::{self, Write as _};
use std::sync::Arc;

use crate::build_context::Tree;
use crate::domain::{Descriptor, media_type, seconds_now};
use crate::engine::buildkit::SentTimes;
use crate::executor::execution::Execution;
use crate::mounts::record::MountsRecord;
use crate::mounts::times::{Before, Contents, ContextTimes, decide};
use crate::planner::build_plan::BuildPlan;
use crate::transfer::{BlobSource as _, BytesSource};

/// The largest record of times in bytes, compressed and uncompressed.
const LARGEST: u64 = 64 << 20;

/// Returns the times to send with the mounts of a record. Returns `None` if no time would be right, so that the mounts must not be used.
pub async fn choose(execution: &Execution<'_>, plan: &BuildPlan, record: &MountsRecord) -> Option<ContextTimes> {
    // Without the times, everything counts as changed.
    let times = read(execution, &record.times).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "the times of the last build are not known");
        ContextTimes::default()
    });
    let before = Before { times, newest: Some(record.newest) };
    decide(&before, &contents(plan), i64::try_from(seconds_now()).ok()?)
}

/// Lets the session send these times.
pub fn send(execution: &Execution<'_>, times: &ContextTimes) {
    let mut sent = SentTimes::default();
    times.iter().for_each(|(directory, path, one)| sent.insert(directory, path, one.time));
    execution.session.send_times(Arc::new(sent));
}

/// Saves the times with which the context was sent. Returns their blob.
///
/// # Errors
/// If the store does not accept it.
pub async fn save(execution: &Execution<'_>, plan: &BuildPlan, chosen: Option<&ContextTimes>) -> io::Result<Descriptor> {
    let sent = execution.session.sent_times();
    let times = ContextTimes::record(&contents(plan), chosen, |directory, path| sent.get(directory, path));
    let mut packed = zstd::stream::write::Encoder::new(Vec::new(), 0)?;
    packed.write_all(&serde_json::to_vec(&times)?)?;
    let source = BytesSource::new(packed.finish()?.into());
    execution.cache.blobs().keep(&source).await.map_err(io::Error::other)?;
    let identity = source.identity().await?;
    Ok(Descriptor::new(media_type::OCI_LAYER_ZSTD, identity.digest, identity.size))
}

async fn read(execution: &Execution<'_>, blob: &Descriptor) -> io::Result<ContextTimes> {
    let packed = execution.cache.blobs().read(&blob.digest, LARGEST).await.map_err(io::Error::other)?;
    let packed = packed.ok_or_else(|| io::Error::other("the blob is missing"))?;
    let plain = io::Read::take(zstd::stream::read::Decoder::new(&packed[..])?, LARGEST);
    Ok(serde_json::from_reader(io::BufReader::new(plain))?)
}

/// Returns the content of all that the build sends.
fn contents(plan: &BuildPlan) -> Contents {
    let trees = plan.expected();
    Contents::of(trees.iter().map(|((directory, _), tree)| (&**directory, &**tree as &Tree)))
}
