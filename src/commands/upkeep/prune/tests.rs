//! Tests of `prune` on stores in memory and in a directory.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::*;
use crate::cache::keys::{disk_key, inputs_key};
use crate::cache::layout;
use crate::cache::uses::save_uses;
use crate::disk::{DiskRecord, SavedDisk};
use crate::domain::{Descriptor, DiffId, media_type};
use crate::hidden::Hidden;
use crate::plan::{Layer, RecordKey, Records, StepRecord};
use crate::store::DirectoryStore;
use crate::transfer::{BlobSource as _, BytesSource};

const DAY: u64 = 24 * 60 * 60;

/// A store in a directory, whose files can be made older.
struct World {
    folder: tempfile::TempDir,
    store: Arc<DirectoryStore>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(DirectoryStore::new(folder.path().to_owned()));
        layout::begin(&Blobs::new(store.clone())).await.unwrap();
        Self { folder, store }
    }

    /// Saves a build of an image whose layers have these texts, 1 KiB each.
    async fn build(&self, scope: &str, image: &str, layers: &[&str]) -> Vec<Digest> {
        let blobs = Blobs::new(self.store.clone());
        let mut all = Vec::new();
        for text in layers {
            let source = BytesSource::new(text.repeat(1024).into_bytes()[..1024].to_vec().into());
            blobs.keep(&source).await.unwrap();
            let digest = source.identity().await.unwrap().digest;
            all.push(Layer {
                blob: Descriptor::new(media_type::OCI_LAYER_GZIP, digest, 1024),
                diff_id: DiffId::hash(text.as_bytes()),
                created: None,
            });
        }
        let records = Records::new(blobs.clone(), vec![scope.to_owned()], true, Hidden::default());
        let digests = all.iter().map(|layer| layer.blob.digest.clone()).collect();
        let key = RecordKey::<StepRecord>::new(Digest::hash(layers.concat().as_bytes()));
        records.write([(key, StepRecord { layers: all, ran: None })]).await.unwrap();
        let (name, tag) = image.rsplit_once(':').unwrap();
        let inputs = RecordKey::<StepRecord>::new(inputs_key(name, tag).digest().clone());
        records.write([(inputs, StepRecord { layers: Vec::new(), ran: None })]).await.unwrap();
        blobs.note_whole();
        save_uses(&blobs, scope, name, tag).await.unwrap();
        digests
    }

    /// Makes all files older that are not older already.
    fn age(&self, days: u64) {
        let then = SystemTime::now() - Duration::from_secs(days * DAY);
        self.each(&mut |path| {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            if file.metadata().unwrap().modified().unwrap() > then {
                file.set_modified(then).unwrap();
                // The name of a list has its day.
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if path.components().any(|part| part.as_os_str() == "uses") {
                    let day = seconds_now() / DAY - days;
                    std::fs::rename(path, path.with_file_name(format!("{day}-{}", name.split_once('-').unwrap().1))).unwrap();
                }
            }
        });
    }

    fn each(&self, work: &mut dyn FnMut(&std::path::Path)) {
        let mut open = vec![self.folder.path().to_owned()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { open.push(path) } else { work(&path) }
            }
        }
    }

    async fn prune(&self, settings: &PruneSettings) -> Value {
        let settings = PruneSettings { json: true, ..settings.clone() };
        let text = prune(&Blobs::new(self.store.clone()), &settings, &Events::none()).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    async fn has(&self, digests: &[Digest]) -> Vec<bool> {
        let mut all = Vec::new();
        for digest in digests {
            all.push(crate::store::ObjectStore::size(&*self.store, &Name::blob(digest)).await.unwrap().is_some());
        }
        all
    }

    fn count(&self) -> usize {
        let mut count = 0;
        self.each(&mut |_| count += 1);
        count
    }
}

fn keep(days: u64) -> PruneSettings {
    let keep = Some(Duration::from_secs(days * DAY));
    PruneSettings { keep, grace: Duration::from_secs(2 * DAY), marks: true, ..PruneSettings::default() }
}

#[tokio::test]
async fn what_no_build_used_of_late_goes_after_two_looks() {
    let world = World::new().await;
    let old = world.build("main", "user/app:latest", &["base", "old"]).await;
    world.age(40);
    let new = world.build("main", "user/app:latest", &["base", "new"]).await;
    let dry = world.prune(&PruneSettings { dry_run: true, ..keep(30) }).await;
    assert_eq!((&dry["builds"], &dry["removed_records"], &dry["unused_blobs"]), (&2.into(), &1.into(), &1.into()), "{dry}");
    let before = world.count();
    let first = world.prune(&keep(30)).await;
    assert_eq!(
        (&first["removed_builds"][0]["image"], &first["removed_blobs"]),
        (&"user/app:latest".into(), &0.into()),
        "{first}"
    );
    assert_eq!(before, world.count() + 2 - 1, "a list and a record went, and marks came");
    assert_eq!(world.has(&old).await, [true, true]);
    // The marks are older than the grace period by then.
    let marks = world.folder.path().join("prune/marks.json");
    let text = std::fs::read_to_string(&marks).unwrap();
    let then = (seconds_now() - 3 * DAY).to_string();
    let since = text.rsplit_once(':').unwrap().1.trim_end_matches('}').to_owned();
    std::fs::write(&marks, text.replace(&since, &then)).unwrap();
    let second = world.prune(&keep(30)).await;
    assert_eq!((&second["removed_blobs"], &second["removed_bytes"]), (&1.into(), &1024.into()), "{second}");
    assert_eq!((world.has(&old).await, world.has(&new).await), (vec![true, false], vec![true, true]));
    assert!(!marks.exists());
}

#[tokio::test]
async fn a_blob_that_is_needed_again_stays() {
    let world = World::new().await;
    let old = world.build("main", "user/app:latest", &["old"]).await;
    world.age(40);
    world.prune(&keep(30)).await;
    world.build("main", "user/app:latest", &["old"]).await;
    let settings = PruneSettings { grace: Duration::ZERO, ..keep(30) };
    world.prune(&settings).await;
    assert_eq!(world.has(&old).await, [true]);
}

/// A record names lists of chunks, and those the chunks.
#[tokio::test]
async fn the_chunks_of_a_daemons_disk_stay_as_long_as_its_image() {
    let world = World::new().await;
    let blobs = Blobs::new(world.store.clone());
    let keep_blob = async |bytes: Vec<u8>| {
        let source = BytesSource::new(bytes.into());
        blobs.keep(&source).await.unwrap();
        source.identity().await.unwrap().digest
    };
    let (chunk, before) = (keep_blob(b"a chunk".to_vec()).await, keep_blob(b"a chunk of an earlier disk".to_vec()).await);
    let node = keep_blob(serde_json::to_vec(&[Some(&chunk), None]).unwrap()).await;
    let disk = Some(SavedDisk { chunks: 2, nodes: vec![node.clone()] });
    let record = DiskRecord { daemon: "28".to_owned(), disk, used: 1, reads: vec![0], builds: 1, saved: 1 };
    let records = Records::new(blobs.clone(), vec!["main".to_owned()], true, Hidden::default());
    records.write([(disk_key("user/app", "latest"), record)]).await.unwrap();
    world.build("main", "user/app:latest", &["layer"]).await;
    let settings = PruneSettings { grace: Duration::ZERO, ..keep(30) };
    world.age(10);
    world.prune(&settings).await;
    assert_eq!(world.has(&[chunk.clone(), node.clone(), before]).await, [true, true, false]);
    world.age(40);
    world.prune(&settings).await;
    assert_eq!(world.has(&[chunk, node]).await, [false, false]);
}

#[tokio::test]
async fn the_latest_builds_of_each_image_stay() {
    let world = World::new().await;
    let mut all = Vec::new();
    for number in 0..5 {
        all.extend(world.build("main", "user/app:latest", &[&format!("layer {number}")]).await);
        all.extend(world.build("main", "user/other:latest", &[&format!("other {number}")]).await);
        world.age(5 - number);
    }
    let settings = PruneSettings { keep_builds: Some(2), grace: Duration::ZERO, marks: true, ..PruneSettings::default() };
    let told = world.prune(&settings).await;
    assert_eq!((told["removed_builds"].as_array().unwrap().len(), &told["removed_blobs"]), (6, &6.into()), "{told}");
    assert_eq!(world.has(&all).await, [false, false, false, false, false, false, true, true, true, true]);
}

#[tokio::test]
async fn the_size_of_what_is_needed_has_a_limit() {
    let world = World::new().await;
    let first = world.build("main", "user/app:latest", &["base", "one"]).await;
    world.age(3);
    let second = world.build("main", "user/app:latest", &["base", "two"]).await;
    world.age(2);
    let third = world.build("pr/1", "user/app:latest", &["base", "three"]).await;
    world.age(1);
    let settings = |most| PruneSettings { max_size: Some(most), grace: Duration::ZERO, marks: true, ..PruneSettings::default() };
    let told = world.prune(&settings(3 * 1024)).await;
    assert_eq!((told["removed_builds"].as_array().unwrap().len(), &told["needed_bytes"]), (1, &3072.into()), "{told}");
    assert_eq!(world.has(&first).await, [true, false]);
    assert_eq!((world.has(&second).await, world.has(&third).await), (vec![true, true], vec![true, true]));
    // Only in these scopes, whatever the others need.
    let told = world.prune(&PruneSettings { scopes: vec!["pr/*".to_owned()], ..settings(0) }).await;
    assert_eq!(told["removed_builds"][0]["scope"], "pr/1", "{told}");
    assert_eq!((world.has(&second).await, world.has(&third).await), (vec![true, true], vec![true, false]));
}

/// A record that no list names is of a build that still runs, or of an older hakobi.
#[tokio::test]
async fn what_has_no_list_stays_as_long_as_it_is_new() {
    let world = World::new().await;
    let app = world.build("main", "user/app:latest", &["app"]).await;
    let lost = world.build("main", "user/lost:latest", &["lost"]).await;
    let older = world.build("older", "user/app:latest", &["older"]).await;
    std::fs::remove_dir_all(world.folder.path().join("uses/main/user%2flost%3alatest")).unwrap();
    std::fs::remove_dir_all(world.folder.path().join("uses/older")).unwrap();
    world.prune(&keep(30)).await;
    assert_eq!((world.has(&lost).await, world.has(&older).await), (vec![true], vec![true]));
    world.age(10);
    let settings = PruneSettings { marks: false, ..keep(30) };
    world.build("main", "user/app:latest", &["app"]).await;
    world.prune(&settings).await;
    assert_eq!((world.has(&app).await, world.has(&lost).await), (vec![true], vec![true]), "its record is of no build, and new");
    assert_eq!(world.has(&older).await, [true], "the whole scope has no list");
    world.age(40);
    world.prune(&PruneSettings { scopes: vec!["other".to_owned()], ..settings.clone() }).await;
    assert_eq!((world.has(&lost).await, world.has(&older).await), (vec![true], vec![true]), "in a scope that was not chosen");
    world.prune(&settings).await;
    assert_eq!(world.has(&lost).await, [false]);
    assert_eq!(world.has(&older).await, [false]);
    assert_eq!(world.has(&app).await, [false]);
}

#[tokio::test]
async fn a_directory_is_pruned_if_it_is_too_large() {
    let world = World::new().await;
    let old = world.build("main", "user/app:latest", &["old"]).await;
    world.age(1);
    let new = world.build("main", "user/app:latest", &["new"]).await;
    std::fs::write(world.folder.path().join("blobs/sha256/.hakobi-x"), "half").unwrap();
    let blobs = Blobs::new(world.store.clone());
    assert_eq!(prune_to(&blobs, 1 << 20).await.unwrap(), None);
    let told = prune_to(&blobs, 2000).await.unwrap().unwrap();
    assert!(told.starts_with("pruned the cache, which was above 0.0 MB: 1 builds and 0.0 MB removed"), "{told}");
    assert_eq!((world.has(&old).await, world.has(&new).await), (vec![false], vec![true]));
    assert!(world.folder.path().join("blobs/sha256/.hakobi-x").exists(), "it may be of a run that still writes");
}

/// What builds that failed saved is in no list, but counts for the size.
#[tokio::test]
async fn what_has_no_list_goes_if_the_cache_would_be_too_large() {
    let world = World::new().await;
    let app = world.build("main", "user/app:latest", &["app"]).await;
    let failed = world.build("main", "user/failed:latest", &["failed"]).await;
    world.age(3);
    let new = world.build("main", "user/new:latest", &["new"]).await;
    for image in ["failed", "new"] {
        std::fs::remove_dir_all(world.folder.path().join(format!("uses/main/user%2f{image}%3alatest"))).unwrap();
    }
    let settings = |most| PruneSettings { max_size: Some(most), marks: false, ..keep(30) };
    world.prune(&settings(2 * 1024)).await;
    assert_eq!(world.has(&[app.clone(), failed.clone(), new.clone()].concat()).await, [true, true, true]);
    world.prune(&settings(1024)).await;
    // The newest one may be of a build that still runs.
    assert_eq!(world.has(&[app, failed, new].concat()).await, [true, false, true]);
}

/// A damaged list would keep all of its scope for ever.
#[tokio::test]
async fn a_damaged_list_goes_when_it_is_old_enough() {
    let world = World::new().await;
    let lost = world.build("main", "user/app:latest", &["app"]).await;
    let damage = |path: &std::path::Path| {
        if path.to_string_lossy().contains("uses/main/") {
            std::fs::write(path, r#"{"version":1,"rec"#).unwrap();
        }
    };
    world.each(&mut |path| damage(path));
    let settings = PruneSettings { marks: false, ..keep(0) };
    let told = world.prune(&settings).await;
    assert_eq!((world.has(&lost).await, &told["unreadable_scopes"]), (vec![true], &serde_json::json!(["main"])));
    world.age(100);
    let told = world.prune(&settings).await;
    assert_eq!((world.has(&lost).await, &told["unreadable_scopes"]), (vec![false], &serde_json::json!([])));
    world.each(&mut |path| assert!(!path.to_string_lossy().contains("uses/"), "{path:?}"));
}

/// A list of a later version says nothing: nothing of its scope goes.
#[tokio::test]
async fn a_list_that_cannot_be_read_keeps_its_scope() {
    let world = World::new().await;
    let lost = world.build("main", "user/app:latest", &["app"]).await;
    let other = world.build("pr/1", "user/app:latest", &["other"]).await;
    world.each(&mut |path| {
        if path.to_string_lossy().contains("uses/main/") {
            std::fs::write(path, r#"{"version":2}"#).unwrap();
        }
    });
    world.age(100);
    let settings = PruneSettings { marks: false, ..keep(30) };
    let told = world.prune(&settings).await;
    assert_eq!((world.has(&lost).await, world.has(&other).await), (vec![true], vec![false]));
    assert_eq!(told["unreadable_scopes"], serde_json::json!(["main"]));
}

/// What an unchanged build reads is not enough for the next change.
#[tokio::test]
async fn a_whole_build_stays_as_long_as_its_image_is_used() {
    let world = World::new().await;
    let all = world.build("main", "user/app:latest", &["base", "app"]).await;
    world.age(40);
    let blobs = Blobs::new(world.store.clone());
    let result = RecordKey::<StepRecord>::new(Digest::hash(b"result"));
    let records = Records::new(blobs.clone(), vec!["main".to_owned()], true, Hidden::default());
    records.write([(result, StepRecord { layers: Vec::new(), ran: None })]).await.unwrap();
    save_uses(&blobs, "main", "user/app", "latest").await.unwrap();
    let settings = PruneSettings { grace: Duration::ZERO, ..keep(30) };
    assert_eq!(world.prune(&settings).await["removed_builds"].as_array().unwrap().len(), 0);
    assert_eq!(world.has(&all).await, [true, true]);
}

/// 1,000 builds of 50 images with 10 records each, and 10,000 sparse blobs of 5 MB: 50 GB.
#[tokio::test]
#[ignore = "long"]
async fn long_a_store_of_many_records_and_blobs() {
    const SIZE: u64 = 5_000_000;
    let world = World::new().await;
    for build in 0..1000 {
        let blobs = Blobs::new(world.store.clone());
        let records = Records::new(blobs.clone(), vec!["main".to_owned()], true, Hidden::default());
        let (mut layers, mut all) = (Vec::new(), Vec::new());
        for step in 0..10 {
            let text = format!("{build} {step}");
            let digest = Digest::hash(text.as_bytes());
            let path = world.folder.path().join("blobs/sha256").join(digest.to_string().trim_start_matches("sha256:"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::File::create(path).unwrap().set_len(SIZE).unwrap();
            let blob = Descriptor::new(media_type::OCI_LAYER_GZIP, digest, SIZE);
            layers.push(Layer { blob, diff_id: DiffId::hash(text.as_bytes()), created: None });
            let key = RecordKey::<StepRecord>::new(Digest::hash(format!("step {text}").as_bytes()));
            all.push((key, StepRecord { layers: layers.clone(), ran: None }));
        }
        records.write(all).await.unwrap();
        blobs.note_whole();
        save_uses(&blobs, "main", &format!("user/app-{}", build % 50), "latest").await.unwrap();
    }
    let settings =
        PruneSettings { max_size: Some(20_000_000_000), grace: Duration::ZERO, marks: true, ..PruneSettings::default() };
    let told = world.prune(&settings).await;
    let number = |name: &str| told[name].as_u64().unwrap();
    assert!((19_000_000_000..=20_000_000_000).contains(&number("needed_bytes")), "{told}");
    let again = world.prune(&settings).await;
    let removed = number("removed_blobs") + again["removed_blobs"].as_u64().unwrap();
    assert_eq!(removed, 10_000 - number("needed_bytes") / SIZE, "{told} {again}");
}
