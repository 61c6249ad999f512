//! Writes an assembled layer, compresses it and uploads it.

use std::collections::HashMap;
use std::io::{self, Write};

use tokio_util::io::SyncIoBridge;

use crate::build_context::Difference;
use crate::domain::{Descriptor, DiffId, Digest, Hasher, media_type};
use crate::error::{Error, Result};
use crate::executor::context_files::content;
use crate::graph::Op;
use crate::layers::assemble::{AssembledKind, AssembledLayer, Content, WriteError};
use crate::plan::Layer;
use crate::planner::build_plan::BuildPlan;
use crate::publish::release::Release;
use crate::run::context::BuildContext;
use crate::settings::Compression;
use crate::transfer::BlobSource as _;
use crate::transfer::compress::compress;

/// Buffer size between the tar writer and the compressor, in bytes.
pub const PIPE: usize = 1 << 20;

/// Writes a layer, compresses it and uploads it, all at once. Returns the difference if a file changed after hakobi hashed it.
///
/// # Errors
/// If the layer cannot be written.
pub async fn write(
    context: &BuildContext<'_>,
    plan: &BuildPlan,
    op: &Op,
    assembled: AssembledLayer,
    now: u64,
    release: &Release,
) -> Result<std::result::Result<Layer, Difference>> {
    let failed = |error: &io::Error| Error::build("failed to create a layer of files").because(error);
    let keyed = keyed(plan, op, &assembled);
    let (theirs, ours) = tokio::io::duplex(PIPE);
    let writing = tokio::task::spawn_blocking(move || {
        let mut out = Hashing { out: SyncIoBridge::new(ours), hasher: Hasher::default() };
        let mut changed = None;
        let written = assembled.write_tar(&mut out, now, &mut |source, path, digest| {
            if keyed.get(&(source, path.to_owned())) != Some(digest) {
                changed.get_or_insert_with(|| Difference::of_content(path));
            }
        });
        match (changed, written) {
            (Some(difference), _) | (None, Err(WriteError::Moved(difference))) => Ok(Err(difference)),
            (None, Err(WriteError::Out(error))) => Err(error),
            (None, Ok(())) => {
                out.flush()?;
                Ok(Ok(out.hasher.diff_id()))
            }
        }
    });
    let compression = context.build.push_settings.compression;
    let spool = release.take_stream(compress(Box::pin(theirs), compression))?;
    let written = writing.await.map_err(io::Error::other).and_then(|written| written).map_err(|error| failed(&error))?;
    let diff_id: DiffId = match written {
        Ok(diff_id) => diff_id,
        Err(difference) => return Ok(Err(difference)),
    };
    let identity = spool.identity().await.map_err(|error| failed(&error))?;
    let media_type = match compression {
        Compression::Gzip(_) => media_type::OCI_LAYER_GZIP,
        Compression::Zstd(_) => media_type::OCI_LAYER_ZSTD,
    };
    let created = jiff::Timestamp::now().to_string();
    Ok(Ok(Layer { blob: Descriptor::new(media_type, identity.digest, identity.size), diff_id, created: Some(created) }))
}

/// Returns the digests of a layer's files that the step's key contains, by the number of the input and the path.
pub fn keyed(plan: &BuildPlan, op: &Op, assembled: &AssembledLayer) -> HashMap<(usize, String), Digest> {
    let files = assembled.entries().filter_map(|(_, entry)| match &entry.kind {
        AssembledKind::File(Content::Context { source, path, .. }) => Some((*source, path)),
        _ => None,
    });
    files.filter_map(|(source, path)| Some(((source, path.clone()), content(plan, op, source, path)?))).collect()
}

/// A writer that hashes the bytes that pass.
pub struct Hashing<W> {
    pub out: W,
    pub hasher: Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
