//! The lists and pointers that `hakobi cache` reads.

use std::fs;
use std::time::Duration;

use hakobi::commands;
use hakobi::domain::Digest;
use hakobi::event::Events;
use hakobi::settings::{CacheCommand, CacheMode, CacheSettings, PruneSettings, RegistrySettings, StoreLocation};
use hakobi::store::{Blobs, DirectoryStore, Name, ObjectStore as _};
use hakobi::transfer::BytesSource;
use std::sync::Arc;

/// Runs the commands on a cache whose parts are all objects but blobs: the first line of a part is its name, or it is a list of used
/// records. A blob that a valid pointer names must stay.
pub fn upkeep(input: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("cache");
    let store = Arc::new(DirectoryStore::new(root.clone()));
    let blobs = Blobs::new(store.clone());
    let settings = CacheSettings {
        location: StoreLocation::Directory(root.clone()),
        shown: "cache".to_owned(),
        scope: "main".to_owned(),
        fallbacks: Vec::new(),
        mode: CacheMode::ReadWrite,
        required: false,
        max_size: None,
    };
    super::run(async {
        let put = async |name: &Name, bytes: &[u8]| store.write(name, &BytesSource::new(bytes.to_vec().into())).await.unwrap();
        put(&Name::format(), br#"{"version":1}"#).await;
        blobs.keep(&BytesSource::new(b"{}"[..].into())).await.unwrap();
        let pointed = Digest::hash(b"{}");
        put(&Name::reference("main", "app:latest"), format!(r#"{{"digest":"{pointed}"}}"#).as_bytes()).await;
        for part in super::parts(input).into_iter().take(20) {
            let (first, rest) = part.split_at(part.iter().position(|byte| *byte == b'\n').unwrap_or(0));
            let name = std::str::from_utf8(first).ok().and_then(|name| name.parse::<Name>().ok());
            let named =
                name.filter(|name| !name.as_str().starts_with("blobs/") && *name != Name::reference("main", "app:latest"));
            match named.filter(|name| *name != Name::format() && name.as_str().split('/').all(|part| part.len() < 100)) {
                Some(name) => drop(store.write(&name, &BytesSource::new(rest.to_vec().into())).await),
                None => put(&Name::used("main", "app:latest", 20_000, &Digest::hash(part)), part).await,
            }
        }
        let prune = |dry_run| {
            let keep = Some(Duration::from_secs(1 << 20));
            CacheCommand::Prune(PruneSettings {
                keep,
                keep_builds: Some(1),
                marks: true,
                dry_run,
                json: true,
                ..Default::default()
            })
        };
        for command in [
            CacheCommand::List { json: true },
            CacheCommand::Stat { json: false },
            CacheCommand::Verify { repair: false },
            prune(true),
            prune(false),
            CacheCommand::List { json: false },
        ] {
            let _ = commands::cache(command, &settings, &RegistrySettings::default(), &Events::none()).await;
        }
    });
    assert!(fs::exists(&root).unwrap());
}
