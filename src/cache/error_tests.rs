//! Snapshots of the cache's faults: the warnings of a run, and the errors of a run that requires its cache.

use std::path::Path;

use crate::cache::fault::{Fault as _, FaultText, cache_error, cache_fault};
use crate::cache::faults::CacheFaults;
use crate::cache::layout::{Layout, is_there};
use crate::cache::opened::{BuildCache, CacheRefusal, OpenedCache};
use crate::cache::session::CacheSession;
use crate::domain::Digest;
use crate::error::{Error, Kind, shown};
use crate::event::Events;
use crate::registry::Registries;
use crate::settings::{CacheMode, CacheSettings, RegistrySettings, StoreLocation};
use crate::store::{self, DirectoryStore, GIVEN_UP, Name};

fn settings(directory: &Path, required: bool) -> CacheSettings {
    CacheSettings {
        location: StoreLocation::Directory(directory.to_owned()),
        shown: "s3://bucket/team".to_owned(),
        scope: "main".to_owned(),
        fallbacks: Vec::new(),
        mode: CacheMode::ReadWrite,
        required,
        max_size: None,
    }
}

fn told(error: &Error) -> String {
    format!("{:?} {}", error.kind(), shown(error, error.hint_text()))
}

/// Returns the warnings of a run whose cache is this directory.
async fn warnings(directory: &Path, faults: impl AsyncFnOnce(&BuildCache<'_>)) -> String {
    let (settings, events) = (settings(directory, false), Events::none());
    let registries = Registries::new(&RegistrySettings::default(), Events::none());
    let session = CacheSession::open(&settings, "app", "latest", &registries).await.expect("opened");
    let opened = OpenedCache { session: Some(session), faults: CacheFaults::new(&settings, &events) };
    let cache = BuildCache { opened: Some(opened), is_repeatable: true };
    faults(&cache).await;
    let (_, faults) = cache.usable().expect("a cache");
    faults.warnings().iter().map(|warning| format!("warning: {warning}\n")).collect()
}

fn denied() -> store::Error {
    store::Error::new(store::Fault::Denied, "failed to write hakobi.json in the bucket bucket: AccessDenied")
        .hint("allow s3:PutObject on the bucket for the role")
}

#[tokio::test]
async fn a_fault_warns_or_ends_the_run() {
    let directory = Path::new("cache");
    let registry = crate::registry::Error::internal("an upload ended because of a bug in hakobi");
    let user = Error::new(Kind::Cache, "cannot create a temporary directory for layers").hint("set TMPDIR to another directory");
    let json = serde_json::from_str::<u8>("x").expect_err("no number");
    let mut out = String::new();
    for required in [false, true] {
        let (settings, events) = (settings(directory, required), Events::none());
        let faults = CacheFaults::new(&settings, &events);
        for result in [
            faults.warn_without("continuing", &denied()),
            faults.warn_without("restarting the build", &denied()),
            faults.warn_unsaved(&denied()),
            faults.warn_unsaved(&registry),
            faults.warn_unsaved(&user),
            faults.warn("failed to read part of", &json),
            faults.warn("failed to read part of", &FaultText("the connection stalled", None)),
            // The user already knows the reason, so this is no further warning.
            faults.warn_unsaved(&FaultText(GIVEN_UP, None)),
        ] {
            assert_eq!(result.is_err(), required);
            out.push_str(&result.err().map(|error| told(&error)).unwrap_or_default());
        }
        out.extend(faults.warnings().iter().map(|warning| format!("warning: {warning}\n")));
    }
    out.push_str(&told(&cache_error("failed to list the cache s3://bucket/team", &denied())));
    out.push_str(&told(&cache_fault(denied())));
    insta::assert_snapshot!("a-fault-warns-or-ends-the-run", out);
}

#[tokio::test]
async fn what_a_cache_does_not_supply() {
    let directory = tempfile::tempdir().expect("a directory");
    let blob = Name::blob(&Digest::hash(b"layer"));
    std::fs::create_dir_all(directory.path().join("blobs/sha256")).expect("made");
    std::fs::write(directory.path().join(blob.as_str()), "lazer").expect("written");
    let mut out = String::new();
    for refusal in [
        CacheRefusal::Lacking,
        CacheRefusal::Broken("failed to read the blob sha256:ab in the cache: the connection stalled".to_owned()),
        CacheRefusal::Otherwise("the config has 2 layers, but the manifest 3".to_owned()),
    ] {
        out.push_str(&warnings(directory.path(), async |cache| cache.cache_refused(&refusal).expect("a warning")).await);
    }
    out.push_str(&warnings(directory.path(), async |cache| read_damaged(cache, true).await).await);
    out.push_str(&warnings(directory.path(), async |cache| read_damaged(cache, false).await).await);
    std::fs::create_dir_all(directory.path().join("steps/main")).expect("made");
    let unread = async |cache: &BuildCache<'_>| {
        let (session, _) = cache.usable().expect("a cache");
        std::fs::remove_dir_all(directory.path().join("blobs")).expect("removed");
        std::fs::write(directory.path().join("blobs"), "").expect("written");
        session.blobs().size(&Digest::hash(b"other")).await.expect_err("no directory");
        cache.warn_of_unread().expect("a warning");
    };
    out.push_str(&warnings(directory.path(), unread).await);
    insta::assert_snapshot!("what-a-cache-does-not-supply", out.replace(&*directory.path().to_string_lossy(), "DIR"));
}

/// Reads the damaged blob as a stream, or as a whole before any reader has a byte of it.
async fn read_damaged(cache: &BuildCache<'_>, streams: bool) {
    let (session, _) = cache.usable().expect("a cache");
    let digest = Digest::hash(b"layer");
    if streams {
        let mut stream = session.blobs().open(&digest, None, 0).await.expect("opened").expect("there");
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.expect_err("damaged");
        cache.cache_failed("the daemon failed to read a layer").expect("a warning");
    } else {
        session.blobs().read(&digest, 10).await.expect_err("damaged");
        session.blobs().note_unusable(&Name::format());
        cache.warn_of_damage().expect("a warning");
    }
}

#[tokio::test]
async fn layouts() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = DirectoryStore::new(directory.path().to_owned());
    let mut out = String::new();
    for format in [r#"{"version":2}"#, r#"{"version":"new"}"#, "x"] {
        std::fs::write(directory.path().join("hakobi.json"), format).expect("written");
        let error = is_there(&store).await.expect_err("no layout of this version");
        out.push_str(&shown(&error, error.remedy().as_deref()));
    }
    assert_eq!(Layout::read(&store).await.expect("read"), Layout::Unreadable);
    insta::assert_snapshot!("layouts", out);
}
