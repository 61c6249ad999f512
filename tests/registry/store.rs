//! The cache in a registry: against Debian's docker-registry, and against the ECR of this process.

use hakobi::domain::Digest;
use hakobi::registry::Registries;
use hakobi::settings::CreateRepository;
use hakobi::store::{Fault, Name, ObjectStore, Pace, RegistryOptions, RegistryStore, read_small};
use hakobi::transfer::BytesSource;

use super::fixtures::*;
use crate::conformance;
use crate::support::ecr_fake::{EcrFake, HOST};
use crate::support::parts::unique;

fn options() -> RegistryOptions {
    RegistryOptions { image: Some("app".to_owned()), scope: "main".to_owned(), ..RegistryOptions::default() }
}

fn open(registries: &Registries, host: &str, path: &str, options: RegistryOptions) -> RegistryStore {
    RegistryStore::new(registries.repository(&repository(host, path)), options, Pace::default())
}

fn record() -> Name {
    Name::record("main", &Digest::hash(b"a key"))
}

async fn write(store: &RegistryStore) -> hakobi::store::Result<()> {
    store.write(&record(), &BytesSource::new("a record".into())).await?;
    let large = vec![7; 300_000];
    store.write(&Name::blob(&Digest::hash(&large)), &BytesSource::new(large.into())).await?;
    store.flush().await
}

async fn is_there(store: &RegistryStore) -> bool {
    let blob = Name::blob(&Digest::hash(&vec![7; 300_000]));
    let record = read_small(store, &record(), 1 << 10).await.unwrap();
    record.as_deref() == Some(&b"a record"[..]) && store.size(&blob).await.unwrap() == Some(300_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_registry_is_a_store() {
    let (registries, _config, host) = logged_in();
    let path = unique("store");
    conformance::holds(&open(&registries, &host, &path, options())).await;
    for _ in 0..3 {
        let store = open(&registries, &host, &path, options());
        write(&store).await.unwrap();
        assert!(is_there(&open(&registries, &host, &path, options())).await);
    }
    let tags = registries.repository(&repository(&host, &path)).tags().await.unwrap();
    assert_eq!(tags.len(), 1, "{tags:?}");
    // Who may not log in is refused, and that is no miss.
    let stranger = open(&super::fixtures::registries(), &host, &path, options());
    assert_eq!(stranger.size(&record()).await.unwrap_err().fault(), Fault::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn ecr_is_a_store() {
    let fake = EcrFake::start().await;
    fake.add("team/cache", false);
    let registries = ecr_registries(&fake);
    conformance::holds(&open(&registries, HOST, "team/cache", options())).await;
    write(&open(&registries, HOST, "team/cache", options())).await.unwrap();
    write(&open(&registries, HOST, "team/cache", options())).await.unwrap();
    assert!(is_there(&open(&registries, HOST, "team/cache", options())).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_ecr_repository_is_made_with_mutable_tags() {
    let fake = EcrFake::start().await;
    let registries = ecr_registries(&fake);
    let missing = open(&registries, HOST, "team/new", options());
    assert_eq!(missing.size(&record()).await.unwrap(), None, "a first build");
    let error = write(&missing).await.unwrap_err();
    assert!(error.hint_text().is_some_and(|hint| hint.contains("--create-repository")), "{error} {:?}", error.hint_text());
    let create = Some(CreateRepository { immutable_tags: true, ..CreateRepository::default() });
    for _ in 0..2 {
        write(&open(&registries, HOST, "team/new", RegistryOptions { create: create.clone(), ..options() })).await.unwrap();
    }
    assert!(!fake.repository("team/new").unwrap().immutable);
    assert!(is_there(&open(&registries, HOST, "team/new", options())).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_with_immutable_tags_takes_one_save_and_says_why_not_the_next() {
    let fake = EcrFake::start().await;
    fake.add("team/fixed", true);
    let registries = ecr_registries(&fake);
    write(&open(&registries, HOST, "team/fixed", options())).await.unwrap();
    let store = open(&registries, HOST, "team/fixed", options());
    let error = write(&store).await.unwrap_err();
    assert!(error.to_string().contains("does not allow tags to move"), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("--cache-repository")), "{:?}", error.hint_text());
}
