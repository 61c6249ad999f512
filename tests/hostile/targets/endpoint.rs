//! Requests to the loopback endpoint, as bytes of a connection.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hakobi::domain::{Descriptor, Digest, ImageRef, RawManifest, media_type};
use hakobi::local_registry::{Address, CacheRepository, Endpoint, Receiver};
use hakobi::registry::Home as _;
use hakobi::store::{Blobs, MemoryStore};
use hakobi::transfer::{BlobSource as _, BytesSource, Identity, Spool};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The content of a blob that no tag of the served repository leads to.
const PRIVATE: &[u8] = b"a blob of another scope";

/// How long the endpoint may be silent before this client closes its side.
const SILENCE: Duration = Duration::from_millis(15);

struct Pushed;

#[async_trait]
impl Receiver for Pushed {
    async fn has(&self, digest: &Digest) -> Option<u64> {
        (*digest == Digest::hash(b"known")).then_some(5)
    }

    async fn arriving(&self, _: Spool) {}

    async fn arrived(&self, identity: Identity, blob: Spool) {
        let mut bytes = Vec::new();
        blob.open(0).await.unwrap().read_to_end(&mut bytes).await.unwrap();
        assert_eq!((Digest::hash(&bytes), bytes.len() as u64), (identity.digest, identity.size));
    }

    async fn manifest(&self, _: &str, _: &str, manifest: RawManifest) -> Result<(), String> {
        manifest.manifest().map(drop).map_err(|error| error.to_string())
    }
}

struct Served {
    endpoint: Endpoint,
    image: ImageRef,
    _directory: tempfile::TempDir,
}

impl Served {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(Arc::new(MemoryStore::default()));
        blobs.keep(&BytesSource::new(PRIVATE.into())).await.unwrap();
        let address = Address::bind().await.unwrap();
        let repository = address.repository("0/app");
        let own = CacheRepository::new(blobs, "main", "app", repository.clone(), true);
        let (config, layer) = (&b"{}"[..], &b"layer"[..]);
        for blob in [config, layer] {
            own.upload(&BytesSource::new(blob.into()), None, Arc::new(|_| ())).await.unwrap();
        }
        let described = |media_type, bytes: &[u8]| Descriptor::new(media_type, Digest::hash(bytes), bytes.len() as u64);
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": described(media_type::OCI_CONFIG, config), "layers": [described(media_type::OCI_LAYER_GZIP, layer)],
        });
        own.put_manifest(&RawManifest::from_json(media_type::OCI_MANIFEST, &manifest).unwrap(), "latest").await.unwrap();
        let endpoint = address.serve(vec![own], Some(Arc::new(Pushed)), directory.path().to_owned());
        Self { endpoint, image: repository.tag("latest"), _directory: directory }
    }

    /// Sends bytes and returns the answer.
    async fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.image.repository.host.as_str()).await.unwrap();
        let (mut answer, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        // The endpoint may close the connection before it has read all.
        let mut open = stream.write_all(bytes).await.is_ok();
        loop {
            match tokio::time::timeout(SILENCE, stream.read(&mut buffer)).await {
                Ok(Ok(read @ 1..)) => answer.extend_from_slice(&buffer[..read]),
                Err(_) if open => open = stream.shutdown().await.is_err(),
                Err(_) => {}
                Ok(_) => return answer,
            }
        }
    }
}

/// Sends the input: `SECRET` stands for the secret path, and `UPLOAD` for an upload that has begun. The endpoint must answer the next
/// client, and must not serve a blob that no tag leads to.
pub fn endpoint(input: &[u8]) {
    thread_local! {
        static SERVED: RefCell<Option<Arc<Served>>> = const { RefCell::new(None) };
    }
    super::run(async {
        let served = SERVED.with_borrow(Clone::clone);
        let served = match served {
            Some(served) => served,
            None => Arc::new(Served::start().await),
        };
        SERVED.set(Some(Arc::clone(&served)));
        let secret = served.endpoint.secret_path();
        let mut bytes = super::replaced(input, b"SECRET", secret.as_bytes());
        if bytes.windows(6).any(|window| window == b"UPLOAD") {
            let begin = format!("POST /v2/{secret}/image/blobs/uploads/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let begun = String::from_utf8(served.ask(begin.as_bytes()).await).unwrap();
            let id = begun.lines().find_map(|line| line.strip_prefix("docker-upload-uuid: ")).expect("an upload");
            bytes = super::replaced(&bytes, b"UPLOAD", id.as_bytes());
        }
        let answer = served.ask(&bytes).await;
        assert!(!answer.windows(PRIVATE.len()).any(|window| window == PRIVATE), "a private blob");
        let alive = served.ask(b"GET /v2/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(alive.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&alive));
    });
}
