//! What every store has to do: one suite, run over each.

use async_trait::async_trait;
use hakobi::domain::Digest;
use hakobi::store::{Fault, Name, ObjectStore};
use hakobi::transfer::{BlobSource, ByteStream, BytesSource, Identity};
use tokio::io::AsyncReadExt;

/// A source that breaks off after a few bytes.
pub struct Broken;

#[async_trait]
impl BlobSource for Broken {
    fn known(&self) -> Option<Identity> {
        None
    }

    async fn open(&self, _: u64) -> std::io::Result<ByteStream> {
        let broken = tokio_util::io::StreamReader::new(futures::stream::iter([
            Ok(bytes::Bytes::from_static(b"some")),
            Err(std::io::Error::other("broken off")),
        ]));
        Ok(Box::pin(broken))
    }

    async fn identity(&self) -> std::io::Result<Identity> {
        Ok(Identity { digest: Digest::hash(b"some more"), size: 9 })
    }
}

/// A source that gives other bytes than it says.
pub struct Lying {
    pub bytes: bytes::Bytes,
    pub said: Identity,
}

impl Lying {
    /// The last byte is another one.
    fn at_the_end(size: usize) -> Self {
        let mut bytes = vec![7; size];
        let said = Identity { digest: Digest::hash(&bytes), size: size as u64 };
        bytes[size - 1] ^= 1;
        Self { bytes: bytes.into(), said }
    }
}

#[async_trait]
impl BlobSource for Lying {
    fn known(&self) -> Option<Identity> {
        Some(self.said.clone())
    }

    async fn open(&self, _: u64) -> std::io::Result<ByteStream> {
        Ok(Box::pin(std::io::Cursor::new(self.bytes.clone())))
    }

    async fn identity(&self) -> std::io::Result<Identity> {
        Ok(self.said.clone())
    }
}

async fn bytes(store: &dyn ObjectStore, name: &Name, range: std::ops::Range<u64>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    store.read(name, range).await.expect("an answer")?.read_to_end(&mut out).await.expect("the bytes");
    Some(out)
}

/// Runs the suite over an empty store.
pub async fn holds(store: &dyn ObjectStore) {
    let blob = Name::blob(&Digest::hash(b"0123456789"));
    // Nothing is a miss, not a fault; neither is taking away what is not there.
    assert_eq!(store.size(&blob).await.expect("an answer"), None);
    assert!(store.read(&blob, 0..10).await.expect("an answer").is_none());
    assert_eq!(store.list("").await.expect("a listing"), []);
    store.delete(&blob).await.expect("an answer");

    store.write(&blob, &BytesSource::new("0123456789".into())).await.expect("written");
    assert_eq!(store.size(&blob).await.expect("an answer"), Some(10));
    assert_eq!(bytes(store, &blob, 0..10).await.as_deref(), Some(&b"0123456789"[..]));
    assert_eq!(bytes(store, &blob, 3..5).await.as_deref(), Some(&b"34"[..]));
    assert_eq!(bytes(store, &blob, 8..u64::MAX).await.as_deref(), Some(&b"89"[..]));
    assert_eq!(bytes(store, &blob, 10..20).await.as_deref(), Some(&b""[..]));

    // A pointer moves in one moment; a failed write leaves the old one.
    let pointer = Name::reference("main", "app");
    store.write(&pointer, &BytesSource::new("first, and longer".into())).await.expect("written");
    store.write(&pointer, &BytesSource::new("second".into())).await.expect("written");
    assert!(store.write(&pointer, &Broken).await.is_err());
    assert_eq!(bytes(store, &pointer, 0..100).await.as_deref(), Some(&b"second"[..]));

    // Bytes that are not those of the digest are never there, whoever says that they are; small or in several parts, too few or too
    // many. That is the source's fault.
    let cut = Lying { bytes: "cut of".into(), said: Identity { digest: Digest::hash(b"cut off"), size: 7 } };
    let empty = Lying { bytes: bytes::Bytes::new(), said: Identity { digest: Digest::hash(b"x"), size: 0 } };
    for lying in [Lying::at_the_end(10), Lying::at_the_end(9 << 20), cut, empty] {
        let name = Name::blob(&lying.said.digest);
        let error = store.write(&name, &lying).await.expect_err("wrong bytes");
        assert_eq!(error.fault(), Fault::Source, "{error}");
        assert_eq!(store.size(&name).await.expect("an answer"), None, "{error}");
    }
    let other = Name::blob(&Digest::hash(b"another"));
    assert_eq!(store.write(&other, &BytesSource::new("one".into())).await.expect_err("another blob").fault(), Fault::Source);
    assert_eq!(store.size(&other).await.expect("an answer"), None);

    // An empty object is an object.
    let empty = Name::reference("main", "empty");
    store.write(&empty, &BytesSource::new(bytes::Bytes::new())).await.expect("written");
    assert_eq!(store.size(&empty).await.expect("an answer"), Some(0));

    // A scope's listing is its own, also where one scope's name begins with another's.
    store.write(&Name::reference("main-2", "app"), &BytesSource::new("x".into())).await.expect("written");
    let mut listed: Vec<_> = store
        .list(&Name::references("main"))
        .await
        .expect("a listing")
        .into_iter()
        .map(|entry| (entry.name, entry.size))
        .collect();
    listed.sort();
    assert_eq!(listed, [(pointer.clone(), 6), (empty, 0)]);
    assert_eq!(store.list("").await.expect("a listing").len(), 4);
    assert!(store.list("").await.expect("a listing").iter().all(|entry| entry.written > 1_600_000_000));

    // Two writers at once: one of the two, whole.
    let (one, other) = (BytesSource::new(vec![b'1'; 100_000].into()), BytesSource::new(vec![b'2'; 100_000].into()));
    let (first, second) = tokio::join!(store.write(&pointer, &one), store.write(&pointer, &other));
    assert!(first.is_ok() && second.is_ok());
    let whole = bytes(store, &pointer, 0..u64::MAX).await.expect("there");
    assert!(whole.len() == 100_000 && whole.iter().all(|byte| *byte == whole[0]));

    // Replaced only by who knows what is there.
    let replaced = Name::reference("main", "replaced");
    let [one, two, three] = ["1", "two", "3"].map(bytes::Bytes::from);
    let replace = |before: Option<&bytes::Bytes>, after: &bytes::Bytes| {
        let (before, after, name) = (before.cloned(), after.clone(), replaced.clone());
        async move { store.replace(&name, before.as_ref(), after).await.expect("an answer") }
    };
    assert!(!replace(Some(&one), &two).await, "there is none");
    assert!(replace(None, &one).await);
    assert!(!replace(None, &three).await, "there is one");
    assert!(!replace(Some(&three), &two).await, "of the same length");
    assert!(!replace(Some(&two), &three).await, "longer");
    assert!(replace(Some(&one), &two).await);
    assert!(!replace(Some(&one), &three).await, "shorter");
    assert_eq!(bytes(store, &replaced, 0..u64::MAX).await.as_deref(), Some(&b"two"[..]));
    store.delete(&replaced).await.expect("deleted");

    store.delete(&pointer).await.expect("deleted");
    assert_eq!(store.size(&pointer).await.expect("an answer"), None);

    // Many at once, there or not.
    let names: Vec<Name> = (0..5).map(|number| Name::reference("many", &number.to_string())).collect();
    for name in &names[..3] {
        store.write(name, &BytesSource::new("x".into())).await.expect("written");
    }
    store.delete_all(&names[1..]).await.expect("deleted");
    let left: Vec<Name> =
        store.list(&Name::references("many")).await.expect("a listing").into_iter().map(|entry| entry.name).collect();
    assert_eq!(left, names[..1]);
    store.delete_all(&[]).await.expect("nothing to do");
    assert_eq!(store.delete_leftovers(0).await.expect("an answer"), 0);
}
