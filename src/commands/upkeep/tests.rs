//! Tests the commands over a store in memory with one image and one cache mount.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;
use crate::cache::keys::{disk_key, mounts_key};
use crate::disk::{DiskRecord, SavedDisk};
use crate::domain::{Descriptor, media_type};
use crate::hidden::Hidden;
use crate::mounts::entry::{ListedEntry, MountEntry, MountEntryKind};
use crate::mounts::record::{CarriedMount, MountCost, MountsRecord};
use crate::mounts::{Limits, Listing, PartSource, SavedMount, SentPart, save};
use crate::plan::Records;
use crate::store::{MemoryStore, Name, ObjectStore as _};
use crate::transfer::{BlobSource as _, BytesSource};

/// A mount with one file.
struct OneFile(Vec<SentPart>);

#[async_trait]
impl PartSource for OneFile {
    async fn send(&mut self, _: &[u32]) -> io::Result<()> {
        Ok(())
    }

    async fn next(&mut self) -> io::Result<Option<SentPart>> {
        Ok(self.0.pop())
    }

    fn gone(&self) -> Vec<u32> {
        Vec::new()
    }
}

async fn saved_mount(blobs: &Blobs) -> SavedMount {
    let entry = |path: &str, kind| {
        let entry = MountEntry { path: path.to_owned(), kind, mode: 0o755, uid: 0, gid: 0, modified: 1, xattrs: BTreeMap::new() };
        ListedEntry { entry, changed: true, used: true }
    };
    let data: Vec<u8> = (0..1_500_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let entries = vec![entry("", MountEntryKind::Directory), entry("a", MountEntryKind::File { size: data.len() as u64 })];
    let mut source = OneFile(vec![SentPart { file: 1, offset: 0, data: data.into() }]);
    let listing = Listing { entries, summary: Digest::hash(b"summary"), at: 2, newest: 1 };
    let limits = Limits { most_bytes: u64::MAX, most_files: u64::MAX };
    save(blobs, None, listing, &mut source, &limits, 1).await.unwrap().mount
}

async fn kept(blobs: &Blobs, media_type: &str, bytes: &[u8]) -> Descriptor {
    let source = BytesSource::new(bytes.to_vec().into());
    blobs.keep(&source).await.unwrap();
    let identity = source.identity().await.unwrap();
    Descriptor::new(media_type, identity.digest, identity.size)
}

/// A store with an image and a mount.
async fn world() -> (Arc<MemoryStore>, SavedMount) {
    let store = Arc::new(MemoryStore::default());
    let blobs = Blobs::new(store.clone());
    let config = kept(&blobs, media_type::OCI_CONFIG, b"{}").await;
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": []});
    let manifest = kept(&blobs, media_type::OCI_MANIFEST, manifest.to_string().as_bytes()).await;
    let pointer = json!({"digest": manifest.digest}).to_string();
    store.set(&Name::reference("pr/1", "user/app:latest"), pointer.into());
    let saved = saved_mount(&blobs).await;
    let times = kept(&blobs, media_type::OCI_LAYER_ZSTD, b"times").await;
    let carried =
        CarriedMount { id: "//obj".to_owned(), saved: saved.clone(), below: BTreeSet::new(), cost: MountCost::default() };
    let mounts = BTreeMap::from([("//obj".to_owned(), carried)]);
    let record = MountsRecord { daemon: String::new(), times, newest: 1, mounts };
    let records = Records::new(blobs, vec!["pr/1".to_owned()], true, Hidden::default());
    records.write([(mounts_key("user/app", "latest"), record)]).await.unwrap();
    (store, saved)
}

async fn ask(store: &Arc<MemoryStore>, command: CacheCommand) -> Answer {
    answer(command, &Blobs::new(store.clone()), &Events::none()).await.unwrap()
}

#[tokio::test]
async fn mounts_are_listed_and_counted() {
    let (store, saved) = world().await;
    let text = ask(&store, CacheCommand::List { json: false }).await.text;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3].iter().map(|line| line.split("  ").next().unwrap()).collect::<Vec<_>>(), ["SCOPE", "pr/1", ""]);
    assert_eq!(lines[3].split_whitespace().collect::<Vec<_>>(), ["SCOPE", "IMAGE", "CACHE", "MOUNT", "FILES", "SIZE", "PACKED"]);
    assert!(lines[4].starts_with("pr/1   user/app:latest  /obj         1      6.0 MB"), "{text}");
    let listed: Value = serde_json::from_str(&ask(&store, CacheCommand::List { json: true }).await.text).unwrap();
    let packed: u64 = saved.blobs().map(|blob| blob.size).sum();
    let mount = json!([{"id": "/obj", "files": 1, "bytes": 6_000_000, "packed": packed, "missing": []}]);
    assert_eq!(listed[0]["mounts"], mount);
    let stat: Value = serde_json::from_str(&ask(&store, CacheCommand::Stat { json: true }).await.text).unwrap();
    assert_eq!((&stat["mounts"], &stat["mount_bytes"]), (&json!(1), &json!(6_000_000)));
    assert_eq!(stat["mount_packed_bytes"], packed);
    assert_eq!(stat["blobs"], stat["used_blobs"], "the times belong to the mounts");
    let text = ask(&store, CacheCommand::Stat { json: false }).await.text;
    assert!(text.contains("\n1 cache mounts with 6.0 MB of files, packed in "), "{text}");
}

#[tokio::test]
async fn damaged_mounts_are_found_and_removed() {
    for is_removed in [false, true] {
        let (store, saved) = world().await;
        let right = ask(&store, CacheCommand::Verify { repair: false }).await;
        assert!(right.text.ends_with("0 damaged; 1 of 1 images complete; 1 of 1 cache mounts complete\n"), "{}", right.text);
        let blob = saved.packs[0].digest.clone();
        if is_removed {
            store.delete(&Name::blob(&blob)).await.unwrap();
        } else {
            store.set(&Name::blob(&blob), "other".into());
        }
        let wrong = ask(&store, CacheCommand::Verify { repair: false }).await;
        assert_eq!(wrong.exit_code, Kind::Cache.exit_code());
        let line = format!("incomplete: cache mount /obj of user/app:latest in scope pr/1: blob {blob} is ");
        assert!(wrong.text.contains(&line) && wrong.text.contains("0 of 1 cache mounts complete"), "{}", wrong.text);
        assert_eq!(wrong.text.contains(&format!("damaged: {blob}")), !is_removed, "{}", wrong.text);
        assert_eq!(ask(&store, CacheCommand::Verify { repair: true }).await.exit_code, 0);
        assert_eq!(store.size(&Name::blob(&blob)).await.unwrap(), None);
        let after = ask(&store, CacheCommand::Verify { repair: false }).await;
        assert!(after.exit_code == 0 && after.text.ends_with("1 of 1 images complete\n"), "the image stays: {}", after.text);
    }
}

/// All blobs are right, but the list of files is that of another mount.
#[tokio::test]
async fn a_list_that_differs_from_the_record_is_found() {
    let (store, mut saved) = world().await;
    saved.files += 1;
    let carried = CarriedMount { id: "//obj".to_owned(), saved, below: BTreeSet::new(), cost: MountCost::default() };
    let blobs = Blobs::new(store.clone());
    let key = mounts_key("user/app", "latest");
    let mut record = Records::look(&*store, "pr/1", &key).await.unwrap().unwrap();
    record.mounts.insert("other".to_owned(), carried);
    Records::new(blobs, vec!["pr/1".to_owned()], true, Hidden::default()).write([(key, record)]).await.unwrap();
    let wrong = ask(&store, CacheCommand::Verify { repair: false }).await;
    assert!(wrong.text.contains("it differs from the record") && wrong.text.contains("1 of 2 cache mounts"), "{}", wrong.text);
}

/// A disk of two chunks, the second of which nobody has written.
#[tokio::test]
async fn the_disk_of_a_daemon_is_listed_counted_and_checked() {
    let (store, _) = world().await;
    let blobs = Blobs::new(store.clone());
    let chunk = kept(&blobs, media_type::OCI_LAYER_ZSTD, b"a chunk").await;
    let node = kept(&blobs, media_type::OCI_LAYER_ZSTD, &serde_json::to_vec(&[Some(&chunk.digest), None]).unwrap()).await;
    let disk = Some(SavedDisk { chunks: 2, nodes: vec![node.digest] });
    let record = DiskRecord { daemon: "28.5.2 overlay2".to_owned(), disk, used: 1, reads: Vec::new(), builds: 3, saved: 1 };
    let records = Records::new(blobs, vec!["pr/1".to_owned()], true, Hidden::default());
    records.write([(disk_key("user/app", "latest"), record)]).await.unwrap();
    let text = ask(&store, CacheCommand::List { json: false }).await.text;
    let last: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(last, ["pr/1", "user/app:latest", "Docker", "28.5.2", "3", "0.0", "MB"], "{text}");
    let stat: Value = serde_json::from_str(&ask(&store, CacheCommand::Stat { json: true }).await.text).unwrap();
    assert_eq!((&stat["disks"], &stat["disk_bytes"]), (&json!(1), &json!(chunk.size + node.size)));
    assert_eq!(stat["blobs"], stat["used_blobs"]);
    let right = ask(&store, CacheCommand::Verify { repair: false }).await.text;
    assert!(right.ends_with("1 of 1 cache mounts complete; 1 of 1 daemons' disks complete\n"), "{right}");
    store.delete(&Name::blob(&chunk.digest)).await.unwrap();
    let wrong = ask(&store, CacheCommand::Verify { repair: true }).await.text;
    let line = format!("incomplete: daemon's disk of user/app:latest in scope pr/1: blob {} is missing", chunk.digest);
    assert!(wrong.contains(&line) && wrong.contains("0 of 1 daemons' disks complete"), "{wrong}");
    let after = ask(&store, CacheCommand::Verify { repair: false }).await;
    assert!(after.exit_code == 0 && !after.text.contains("disk"), "{}", after.text);
}
