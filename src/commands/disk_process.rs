//! The hidden command `hakobi disk-process`: serves the disk of a daemon, and saves it.
//!
//! A process of its own, which never touches the disk: a process that waits for a disk which it serves itself would wait for ever. That
//! includes the end of a mount namespace in which the disk is mounted, so it has another one than the daemon.

use std::fs::File;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::cache::layout;
use crate::disk::lines::{Replies, each};
use crate::disk::protocol::{DiskReply, DiskRequest, ServedDisk};
use crate::disk::{ChunkList, DiskLoss, Image, Lost, serve};
use crate::event::Events;
use crate::registry::Registries;
use crate::settings::RegistrySettings;
use crate::store::{Blobs, RegistryOptions};

/// Serves a disk until its input ends. Returns the exit code.
#[must_use]
pub fn disk_process(input: File, output: File) -> u8 {
    // Memory that the kernel frees by writing to this disk must not be what this process waits for. It fails without the capability,
    // and the risk is then small.
    let _ = rustix::process::configure_io_flusher_behavior(true);
    crate::registry::install_crypto();
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().enable_all().build() else { return 1 };
    let (requests, mut received) = mpsc::unbounded_channel();
    std::thread::spawn(move || each(input, |request: DiskRequest| requests.send(request).is_ok()));
    let output = Replies::new(output);
    let ended = runtime.block_on(async {
        let Some(DiskRequest::Serve(disk)) = received.recv().await else { return Ok(()) };
        run(*disk, &mut received, &output).await
    });
    runtime.shutdown_background();
    match ended {
        Ok(()) => 0,
        Err(why) => {
            output.send(&DiskReply::Failed(why));
            1
        }
    }
}

async fn run(disk: ServedDisk, requests: &mut mpsc::UnboundedReceiver<DiskRequest>, replies: &Replies) -> Result<(), DiskLoss> {
    let registries = Registries::new(&RegistrySettings::default(), Events::none());
    let store = layout::open(&disk.store.location(), &registries, RegistryOptions::default()).await;
    let blobs = Blobs::new(store);
    let list = match &disk.saved {
        Some(saved) => saved.load(&blobs).await?,
        None => ChunkList::empty(disk.size),
    };
    let image = Arc::new(Image::open(blobs, list, &disk.local)?);
    let (lost, mut losses) = mpsc::unbounded_channel::<Lost>();
    let served = serve(Arc::clone(&image), &disk.directory, &disk.name, tokio::runtime::Handle::current(), lost);
    let served = served.map_err(|error| DiskLoss::new(format!("failed to mount a FUSE filesystem: {error}")))?;
    replies.send(&DiskReply::Served);
    let ahead = {
        let image = Arc::clone(&image);
        tokio::spawn(async move { image.fetch_ahead(&disk.ahead).await })
    };
    let mut waiting: Vec<oneshot::Sender<()>> = Vec::new();
    loop {
        tokio::select! {
            Some(Lost { why, told }) = losses.recv() => {
                waiting.push(told);
                replies.send(&DiskReply::Lost(why));
            }
            request = requests.recv() => match request {
                // Dropping them answers them.
                Some(DiskRequest::Abandoned) => waiting.clear(),
                Some(DiskRequest::Save) => {
                    ahead.abort();
                    replies.send(&DiskReply::Saved(image.save(disk.saved.as_ref(), disk.mends).await?));
                }
                Some(DiskRequest::Serve(_)) => {}
                None => break,
            },
        }
    }
    // The end of the process ends the filesystem and all that waits for it. To unmount it could take long, if somebody uses it.
    std::mem::forget(served);
    Ok(())
}
