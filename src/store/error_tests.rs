//! Snapshots of the errors of stores: a directory, memory, and the pace of any store.

use std::io;
use std::path::Path;

use async_trait::async_trait;

use super::{Blobs, DirectoryStore, Error, Fault, MemoryStore, Name, ObjectStore as _, Pace, Result, read_small};
use crate::domain::Digest;
use crate::error::shown;
use crate::transfer::{BlobSource, ByteStream, BytesSource, Identity};

fn told(error: &Error) -> String {
    format!("{:?} {}", error.fault(), shown(error, error.hint_text()))
}

/// A source that cannot be read, or has fewer bytes than it says.
struct Broken(bool);

#[async_trait]
impl BlobSource for Broken {
    fn known(&self) -> Option<Identity> {
        None
    }

    async fn open(&self, _: u64) -> io::Result<ByteStream> {
        Ok(Box::pin(io::Cursor::new("lay")))
    }

    async fn identity(&self) -> io::Result<Identity> {
        let identity = Identity { digest: Digest::hash(b"layer"), size: 5 };
        if self.0 { Ok(identity) } else { Err(io::Error::other("the daemon closed the connection")) }
    }
}

#[tokio::test]
async fn directories() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("file"), "x").expect("written");
    let store = DirectoryStore::new(directory.path().join("file"));
    let (name, source) = (Name::format(), BytesSource::new("{}".into()));
    let mut out = told(&store.size(&name).await.expect_err("no directory"));
    out.push_str(&told(&store.read(&name, 0..1).await.err().expect("no directory")));
    out.push_str(&told(&store.write(&name, &source).await.expect_err("no directory")));
    out.push_str(&told(&store.list("").await.expect_err("no directory")));
    out.push_str(&told(&store.delete(&name).await.expect_err("no directory")));
    for kind in [
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::ReadOnlyFilesystem,
        io::ErrorKind::StorageFull,
        io::ErrorKind::QuotaExceeded,
        io::ErrorKind::StaleNetworkFileHandle,
    ] {
        out.push_str(&told(&Error::io("write", Path::new("DIR/hakobi.json"), &kind.into())));
    }
    insta::assert_snapshot!("directories", out.replace(&*directory.path().to_string_lossy(), "DIR"));
}

#[tokio::test]
async fn objects() {
    let store = std::sync::Arc::new(MemoryStore::default());
    let (blobs, name) = (Blobs::new(store.clone()), Name::blob(&Digest::hash(b"layer")));
    let mut out = told(&store.write(&name, &BytesSource::new("other".into())).await.expect_err("another digest"));
    for source in [Broken(false), Broken(true)] {
        out.push_str(&told(&blobs.keep(&source).await.expect_err("broken")));
    }
    store.set(&name, "lazer".into());
    out.push_str(&told(&read_small(&*store, &name, 4).await.expect_err("too large")));
    out.push_str(&told(&blobs.read(&Digest::hash(b"layer"), 5).await.expect_err("damaged")));
    for text in ["../x", ""] {
        out.push_str(&shown(&text.parse::<Name>().expect_err("no name"), None));
    }
    insta::assert_snapshot!("objects", out);
}

#[tokio::test(start_paused = true)]
async fn paces() {
    let busy = || async { Err(Error::new(Fault::Unreachable, "failed to read x in the bucket b: SlowDown")) };
    let pace = Pace::default();
    for _ in 0..4 {
        let failed: Result<()> = pace.asked(busy()).await;
        failed.expect_err("busy");
    }
    let mut out = told(&pace.given_up().expect("given up"));
    let stalled: Result<()> = Pace::default().asked(std::future::pending()).await;
    out.push_str(&told(&stalled.expect_err("given up")));
    insta::assert_snapshot!("paces", out);
}
