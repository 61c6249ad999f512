//! `hakobi cache verify`: reads all content, and removes what is damaged.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::io::AsyncReadExt as _;

use super::images::CachedImage;
use super::listed::Listed;
use super::mounts::CachedMount;
use crate::cache::uses::{UsesList, read_uses};
use crate::domain::Digest;
use crate::event::Events;
use crate::mounts;
use crate::store::{self, Blobs, Name};

/// How many blobs `verify` reads at once. hakobi downloads and hashes their bytes.
const AT_ONCE: usize = 6;

/// The result of a check.
#[derive(Debug)]
pub struct Verified {
    /// For standard output.
    pub text: String,
    /// Whether anything was wrong.
    pub is_wrong: bool,
}

/// Reads and checks every blob, every cache mount, every disk of a daemon, and every list of what a build used. With `repair`, removes what is wrong.
///
/// # Errors
/// If the store fails.
pub async fn verify(
    blobs: &Blobs,
    images: &[CachedImage],
    listed: &Listed,
    repair: bool,
    events: &Events,
) -> store::Result<Verified> {
    let step = events.step("[hakobi] reading every blob");
    let found = match damaged(blobs, listed).await {
        Ok(damaged) => broken(blobs, images, &damaged).await.map(|broken| (damaged, broken)),
        Err(error) => Err(error),
    };
    let (damaged, broken) = found.inspect_err(|error| step.failed(error))?;
    let lists = damaged_lists(blobs, listed).await.inspect_err(|error| step.failed(error))?;
    step.done();
    let lacking: Vec<&CachedImage> = images.iter().filter(|image| image.lacks(&damaged)).collect();
    let mut text = String::new();
    for digest in &damaged {
        let _ = writeln!(text, "damaged: {digest}");
    }
    for list in &lists {
        let _ = writeln!(text, "damaged: {list}");
    }
    for image in &lacking {
        let _ = writeln!(text, "incomplete: {} in scope {}", image.image, image.scope);
    }
    for Broken { image, mount, why } in &broken {
        let _ = writeln!(text, "incomplete: cache mount {} of {} in scope {}: {why}", mount.id, image.image, image.scope);
    }
    let disks: Vec<_> = images.iter().filter_map(|image| Some((image, image.disk.as_ref()?))).collect();
    let mut bad_disks = Vec::new();
    for (image, disk) in &disks {
        if let Some(why) = bad_blob(&disk.blobs, &damaged, &disk.missing) {
            let _ = writeln!(text, "incomplete: daemon's disk of {} in scope {}: {why}", image.image, image.scope);
            bad_disks.push(&disk.record);
        }
    }
    let is_wrong = !damaged.is_empty() || !lists.is_empty() || !lacking.is_empty() || !broken.is_empty() || !bad_disks.is_empty();
    if repair {
        // Pointers and records go first, so that no reader finds one whose blobs are gone.
        let pointers = lacking.iter().filter_map(|image| image.name.as_ref());
        let records = broken.iter().filter_map(|broken| broken.image.mounts.record.as_ref());
        for name in pointers.chain(records).chain(bad_disks.iter().copied()).chain(&lists) {
            blobs.store().delete(name).await?;
        }
        for digest in &damaged {
            blobs.remove(digest).await?;
        }
        blobs.store().flush().await?;
        if is_wrong {
            text.push_str("removed; the next build runs the missing steps and saves them again\n");
        }
    }
    let complete = images.len() - lacking.len();
    let _ = write!(
        text,
        "{} blobs read, {} damaged; {complete} of {} images complete",
        listed.sizes.len(),
        damaged.len(),
        images.len()
    );
    let mounts = images.iter().map(|image| image.mounts.all.len()).sum::<usize>();
    if mounts > 0 {
        let _ = write!(text, "; {} of {mounts} cache mounts complete", mounts - broken.len());
    }
    if !disks.is_empty() {
        let _ = write!(text, "; {} of {} daemons' disks complete", disks.len() - bad_disks.len(), disks.len());
    }
    text.push('\n');
    Ok(Verified { text, is_wrong })
}

/// Returns the blobs whose bytes do not match their digests.
async fn damaged(blobs: &Blobs, listed: &Listed) -> store::Result<BTreeSet<Digest>> {
    let checked: Vec<store::Result<Option<Digest>>> = stream::iter(listed.sizes.clone())
        .map(|(digest, size)| async move { Ok((!is_right(blobs, &digest, size).await?).then_some(digest)) })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let checked: store::Result<Vec<Option<Digest>>> = checked.into_iter().collect();
    Ok(checked?.into_iter().flatten().collect())
}

/// Returns the damaged lists of what builds used.
async fn damaged_lists(blobs: &Blobs, listed: &Listed) -> store::Result<Vec<Name>> {
    let lists: Vec<Name> = listed.names.iter().filter(|name| name.used_by().is_some()).cloned().collect();
    let checked = stream::iter(lists)
        .map(|name| async move { Ok::<_, store::Error>((read_uses(blobs, &name).await? == UsesList::Damaged).then_some(name)) });
    let checked: Vec<Option<Name>> = checked.buffer_unordered(AT_ONCE).try_collect().await?;
    let mut damaged: Vec<Name> = checked.into_iter().flatten().collect();
    damaged.sort();
    Ok(damaged)
}

/// A cache mount that hakobi cannot bring in.
struct Broken<'a> {
    image: &'a CachedImage,
    mount: &'a CachedMount,
    why: String,
}

/// Returns the cache mounts that hakobi cannot bring in. Reads each content once, even if several scopes have it.
async fn broken<'a>(blobs: &Blobs, images: &'a [CachedImage], damaged: &BTreeSet<Digest>) -> store::Result<Vec<Broken<'a>>> {
    let mut right: Vec<&CachedMount> = Vec::new();
    let mut broken = Vec::new();
    for (image, mount) in images.iter().flat_map(|image| image.mounts.all.iter().map(move |mount| (image, mount))) {
        if right.iter().any(|other| other.saved.has_content_of(&mount.saved)) {
            continue;
        }
        let why = match bad_blob(mount.saved.blobs().map(|blob| &blob.digest), damaged, &mount.missing) {
            None => mounts::verify(blobs, &mount.saved).await?,
            why => why,
        };
        match why {
            Some(why) => broken.push(Broken { image, mount, why }),
            None => right.push(mount),
        }
    }
    Ok(broken)
}

/// Returns what is wrong with a blob of these, or `None` if nothing is.
fn bad_blob<'a>(all: impl IntoIterator<Item = &'a Digest>, damaged: &BTreeSet<Digest>, missing: &[Digest]) -> Option<String> {
    let blob = all.into_iter().find(|digest| damaged.contains(*digest)).map(|blob| format!("blob {blob} is damaged"));
    blob.or_else(|| missing.first().map(|blob| format!("blob {blob} is missing")))
}

async fn is_right(blobs: &Blobs, digest: &Digest, size: u64) -> store::Result<bool> {
    let Some(mut stream) = blobs.open(digest, Some(size), 0).await? else {
        // The blob was deleted meanwhile. A registry's artifact may name a blob that the registry has lost.
        return Ok(blobs.store().repository().is_none());
    };
    let mut buffer = vec![0; 256 << 10];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(_) if blobs.damaged().contains(digest) => return Ok(false),
            Err(error) => {
                return Err(store::Error::new(store::Fault::Unreachable, format!("failed to read the blob {digest}: {error}")));
            }
        }
    }
}
