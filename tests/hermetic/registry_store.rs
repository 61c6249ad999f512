//! The store in a registry by itself: it does what every store does, and two runs that write at once lose nothing.

use std::sync::Arc;

use hakobi::domain::{Digest, ImageRef};
use hakobi::event::Events;
use hakobi::registry::Registries;
use hakobi::settings::RegistrySettings;
use hakobi::store::{Fault, Name, ObjectStore, Pace, RegistryOptions, RegistryStore, read_small};
use hakobi::transfer::BytesSource;

use crate::conformance;
use crate::scripted::files::Files;
use crate::scripted::registry::{Registry, RegistryFault};

fn open(registry: &Registry, scope: &str) -> RegistryStore {
    let registries = Registries::new(&RegistrySettings::default(), Events::none());
    let reference: ImageRef = format!("{}/team/cache", registry.host()).parse().unwrap();
    let options = RegistryOptions { image: Some("app".to_owned()), scope: scope.to_owned(), ..RegistryOptions::default() };
    RegistryStore::new(registries.repository(&reference.repository), options, Pace::default())
}

async fn text(store: &dyn ObjectStore, name: &Name) -> Option<String> {
    let bytes = read_small(store, name, 1 << 20).await.unwrap();
    bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

async fn write(store: &dyn ObjectStore, name: &Name, text: &str) {
    store.write(name, &BytesSource::new(text.to_owned().into())).await.unwrap();
}

fn record(number: u32) -> Name {
    Name::record("main", &Digest::hash(&number.to_be_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_what_every_store_does() {
    conformance::holds(&open(&Registry::start().await, "main")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_is_there_for_others() {
    let registry = Registry::start().await;
    let large = "x".repeat(200_000);
    let blob = Name::blob(&Digest::hash(large.as_bytes()));
    let first = open(&registry, "main");
    write(&first, &record(1), "one").await;
    write(&first, &record(2), &large).await;
    write(&first, &blob, &large).await;
    assert_eq!(text(&open(&registry, "main"), &record(1)).await, None, "only what is saved is visible");
    first.flush().await.unwrap();
    let second = open(&registry, "main");
    assert_eq!(text(&second, &record(1)).await.as_deref(), Some("one"));
    assert_eq!(text(&second, &record(2)).await.as_deref(), Some(&*large));
    assert_eq!(text(&second, &blob).await.as_deref(), Some(&*large));
    second.delete(&record(1)).await.unwrap();
    second.delete(&blob).await.unwrap();
    second.flush().await.unwrap();
    let third = open(&registry, "main");
    assert_eq!(text(&third, &record(1)).await, None);
    assert_eq!(third.size(&blob).await.unwrap(), None, "the registry still has it, but it counts as missing");
    assert_eq!(text(&third, &record(2)).await.as_deref(), Some(&*large));
    // Another scope reads it, and writes its own.
    let branch = open(&registry, "branch");
    assert_eq!(text(&branch, &record(2)).await.as_deref(), Some(&*large));
    write(&branch, &Name::record("branch", &Digest::hash(b"x")), "x").await;
    branch.flush().await.unwrap();
    assert_eq!(registry.tags("team/cache").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn runs_that_save_at_once_lose_nothing() {
    let registry = Arc::new(Registry::start().await);
    let runs = (0..6).map(|run| {
        let registry = Arc::clone(&registry);
        tokio::spawn(async move {
            let store = open(&registry, "main");
            for turn in 0..3 {
                write(&store, &record(run * 100 + turn), &format!("{run} {turn}")).await;
                store.flush().await.unwrap();
            }
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap();
    }
    let after = open(&registry, "main");
    for run in 0..6 {
        for turn in 0..3 {
            assert_eq!(text(&after, &record(run * 100 + turn)).await, Some(format!("{run} {turn}")));
        }
    }
}

/// Nobody used it for 30 saves.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_uses_is_dropped_and_what_is_in_use_stays() {
    let registry = Registry::start().await;
    let large = "y".repeat(100_000);
    let blob = Name::blob(&Digest::hash(large.as_bytes()));
    let first = open(&registry, "main");
    for name in [record(1), record(2)] {
        write(&first, &name, "first").await;
    }
    write(&first, &blob, &large).await;
    first.flush().await.unwrap();
    for turn in 0..35 {
        let store = open(&registry, "main");
        assert!(text(&store, &record(1)).await.is_some());
        store.note_use(&blob);
        write(&store, &record(1000 + turn), "new").await;
        store.flush().await.unwrap();
    }
    let after = open(&registry, "main");
    assert!(text(&after, &record(1)).await.is_some());
    assert_eq!(text(&after, &record(2)).await, None);
    registry.collect_garbage("team/cache");
    assert_eq!(text(&after, &blob).await.as_deref(), Some(&*large));
    let manifests = registry.manifests("team/cache");
    assert_eq!(manifests, 1, "each save removes the manifest before it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_the_registry_lost_does_not_stand_in_the_way() {
    let registry = Registry::start().await;
    let large = "z".repeat(100_000);
    let blob = Name::blob(&Digest::hash(large.as_bytes()));
    let first = open(&registry, "main");
    write(&first, &blob, &large).await;
    write(&first, &record(1), "one").await;
    first.flush().await.unwrap();
    assert!(registry.lose_blob_of("team/cache", &Digest::hash(large.as_bytes()).to_string()));
    let second = open(&registry, "main");
    write(&second, &record(2), "two").await;
    second.flush().await.unwrap();
    let third = open(&registry, "main");
    assert_eq!(text(&third, &record(2)).await.as_deref(), Some("two"));
    assert_eq!(third.size(&blob).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_of_another_version_is_left_alone() {
    let registry = Registry::start().await;
    let store = open(&registry, "main");
    write(&store, &record(1), "one").await;
    store.flush().await.unwrap();
    registry.replace_manifests("team/cache", |text| text.replace("\"dev.hakobi.cache\":\"1\"", "\"dev.hakobi.cache\":\"2\""));
    let error = open(&registry, "main").size(&Name::format()).await.unwrap_err();
    assert!(error.to_string().contains("its layout version is 2, but this hakobi supports 1"), "{error}");
    let error = store_and_flush(&registry).await.unwrap_err();
    assert!(error.to_string().contains("layout version"), "{error}");
}

async fn store_and_flush(registry: &Registry) -> hakobi::store::Result<()> {
    let store = open(registry, "main");
    store.write(&record(2), &BytesSource::new("two".into())).await?;
    store.flush().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_that_breaks_off_leaves_the_last_one() {
    let registry = Registry::start().await;
    for (number, method) in [(1_u32, "POST"), (2, "PATCH"), (3, "PUT"), (4, "HEAD")] {
        let store = open(&registry, "main");
        write(&store, &record(number), "there").await;
        registry.fails(method, "/v2/team/cache/", 0, usize::MAX, RegistryFault::Status(400));
        let saved = store.flush().await;
        registry.mend();
        assert!(saved.is_err() || method == "HEAD", "{method}");
        // The changes are still there for another attempt.
        store.flush().await.unwrap();
    }
    let after = open(&registry, "main");
    for number in 1..=4 {
        assert_eq!(text(&after, &record(number)).await.as_deref(), Some("there"), "{number}");
    }
}

/// Someone's image stands under the artifact's tag: the tag is hakobi's, but the image stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_no_artifact_is_not_removed() {
    let registry = Registry::start().await;
    registry.put_image("team/cache", &[Files::default()], serde_json::json!({}));
    let store = open(&registry, "main");
    write(&store, &record(1), "one").await;
    store.flush().await.unwrap();
    let tag = registry.tags("team/cache").into_iter().find(|tag| tag.starts_with("hakobi-cache-")).unwrap();
    registry.move_tag("team/cache", &tag, "latest");
    let store = open(&registry, "main");
    write(&store, &record(2), "two").await;
    store.flush().await.unwrap();
    assert!(registry.tagged("team/cache", "latest").is_some());
    assert_eq!(text(&open(&registry, "main"), &record(2)).await.as_deref(), Some("two"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_removes_nothing_is_no_fault() {
    let registry = Registry::start().await;
    for (number, fault) in [(1, RegistryFault::Status(500)), (2, RegistryFault::Status(429)), (3, RegistryFault::Status(405))] {
        registry.fails("DELETE", "/v2/team/cache/manifests/", 0, usize::MAX, fault);
        let store = open(&registry, "main");
        write(&store, &record(number), "there").await;
        let began = std::time::Instant::now();
        store.flush().await.unwrap();
        assert!(began.elapsed().as_secs() < 20, "{fault:?}");
    }
}

/// A record that is a blob of its own is damaged: that record is a miss, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_damaged_and_not_unreachable() {
    let registry = Registry::start().await;
    let large = "x".repeat(200_000);
    let store = open(&registry, "main");
    write(&store, &record(1), &large).await;
    store.flush().await.unwrap();
    registry.fails("GET", &Digest::hash(large.as_bytes()).to_string(), 0, usize::MAX, RegistryFault::Damaged);
    let error = read_small(&open(&registry, "main"), &record(1), 1 << 20).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Damaged, "{error}");
}

/// The manifest under the artifact's tag cannot be read, so hakobi has no digest to compare with: it writes another one.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_manifest_is_replaced() {
    let registry = Registry::start().await;
    let store = open(&registry, "main");
    write(&store, &record(1), "one").await;
    store.flush().await.unwrap();
    let tag = registry.tags("team/cache").into_iter().find(|tag| tag.starts_with("hakobi-cache-")).unwrap();
    let before = registry.tagged("team/cache", &tag);
    registry.fails("GET", "/v2/team/cache/manifests/", 0, usize::MAX, RegistryFault::Damaged);
    let store = open(&registry, "main");
    assert_eq!(text(&store, &record(1)).await, None);
    write(&store, &record(2), "two").await;
    store.flush().await.unwrap();
    assert_ne!(registry.tagged("team/cache", &tag), before);
}

/// A registry that shows an artifact and then denies it for a moment has not lost it.
#[tokio::test(flavor = "multi_thread")]
async fn records_survive_a_denial_that_passes() {
    let registry = Registry::start().await;
    let first = open(&registry, "main");
    write(&first, &record(1), "one").await;
    first.flush().await.unwrap();
    let registries = Registries::new(&RegistrySettings::default(), Events::none());
    let reference: ImageRef = format!("{}/team/cache", registry.host()).parse().unwrap();
    let options =
        RegistryOptions { image: Some("app".to_owned()), scope: "main".to_owned(), may_push: true, ..RegistryOptions::default() };
    let second = RegistryStore::new(registries.repository(&reference.repository), options, Pace::default());
    assert!(text(&second, &record(1)).await.is_some());
    write(&second, &record(2), "two").await;
    for method in ["HEAD", "GET"] {
        registry.fails(method, "/v2/team/cache/manifests/", 0, 2, RegistryFault::Status(403));
    }
    let _ = second.flush().await;
    registry.mend();
    second.flush().await.unwrap();
    let after = open(&registry, "main");
    assert!(text(&after, &record(1)).await.is_some() && text(&after, &record(2)).await.is_some());
}
