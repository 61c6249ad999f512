//! An S3 server in this process with real signatures, multipart uploads, ranges and checksums.

#[path = "s3_policy.rs"]
pub mod policy;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// The credentials that the server accepts. It also accepts longer access keys that begin with this one, for roles.
pub const ACCESS_KEY: &str = "AKIAHAKOBITEST";
pub const SECRET_KEY: &str = "not-a-secret";

/// The existing bucket.
pub const BUCKET: &str = "cache";

/// A fault of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The credentials have expired.
    Expired,
    /// The server answers that there are too many requests.
    SlowDown,
    /// The connection breaks.
    Reset,
    /// The server does not answer.
    Stall,
    /// The server executes the request, but the response is lost.
    Lost,
}

/// A fault that begins after this many requests of a method, and lasts until [`S3Server::mend`].
type Faults = Arc<Mutex<Option<Breaks>>>;

/// The rule of a fault.
struct Breaks {
    method: Method,
    /// A part of the object's path.
    below: String,
    left: u32,
    fault: Fault,
}

/// The properties of the bucket that the underlying server does not support.
#[derive(Debug, Clone, Default)]
pub struct Bucket {
    /// The lifecycle configuration, in S3's form. `None` means that there is none.
    pub lifecycle: Option<String>,
    /// The valid KMS keys. Another key does not exist, or is denied if its name says so.
    pub keys: Vec<&'static str>,
    /// The prefixes of keys that no request may write.
    pub guarded: Vec<String>,
    /// The delay of its clock against this machine's.
    pub behind: Duration,
}

/// The roles, the properties of the bucket, and the encryption of each object by its path.
#[derive(Clone, Default)]
struct Extras {
    /// How much later each answer comes.
    delay: Duration,
    roles: policy::Roles,
    bucket: Arc<Mutex<Bucket>>,
    encrypted: Arc<Mutex<HashMap<String, String>>>,
}

/// The server. Its objects are removed when this value is dropped.
pub struct S3Server {
    address: SocketAddr,
    directory: TempDir,
    connections: Arc<AtomicU64>,
    faults: Faults,
    extras: Extras,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl S3Server {
    pub fn start() -> Self {
        Self::limited(None)
    }

    /// Starts a server whose connections each send at most this many bytes a second, like S3's own.
    pub fn limited(rate: Option<u64>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(BUCKET)).unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        let (root, counted) = (directory.path().to_owned(), Arc::clone(&connections));
        let faults = Faults::default();
        let made = Arc::clone(&faults);
        let extras = Extras::default();
        let given = extras.clone();
        let (address, stop) = super::background::serve(move |listener| async move {
            serve_with(listener, &root, rate, counted, made, given).await;
        });
        Self { address, directory, connections, faults, extras, _stop: stop }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the variables with which the SDK finds the server.
    pub fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL_S3", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "eu-west-1".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }

    /// Returns the directory with the objects of the bucket.
    pub fn objects(&self) -> PathBuf {
        self.directory.path().join(BUCKET)
    }

    /// Returns the number of files of unfinished multipart uploads.
    pub fn open_uploads(&self) -> usize {
        let entries = std::fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        entries.filter(|name| name.to_string_lossy().contains("upload")).count()
    }

    /// Fails every request of a method after this many of them.
    pub fn break_after(&self, method: Method, count: u32, fault: Fault) {
        *self.faults.lock().unwrap() = Some(Breaks { method, below: String::new(), left: count, fault });
    }

    /// From now on, fails every request of a method for an object whose path contains this text.
    pub fn break_below(&self, below: &str, method: Method, fault: Fault) {
        *self.faults.lock().unwrap() = Some(Breaks { method, below: below.to_owned(), left: 0, fault });
    }

    /// Sets the properties of the bucket.
    pub fn set(&self, bucket: Bucket) {
        *self.extras.bucket.lock().unwrap() = bucket;
    }

    /// Gives an access key a policy.
    pub fn allow(&self, role: policy::Role) {
        self.extras.roles.add(role);
    }

    /// Refuses an access key as expired after this many requests.
    pub fn expire_after(&self, access_key: &str, requests: u32) {
        self.extras.roles.expire_after(access_key, requests);
    }

    /// Returns all requests so far.
    pub fn asked(&self) -> Vec<policy::Asked> {
        self.extras.roles.log()
    }

    pub fn mend(&self) {
        *self.faults.lock().unwrap() = None;
    }

    /// Returns the number of connections so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Serves the buckets below a directory forever. Each answer comes this much later.
pub async fn serve(listener: TcpListener, root: &Path, delay: Duration) {
    let extras = Extras { delay, ..Extras::default() };
    serve_with(listener, root, None, Arc::default(), Faults::default(), extras).await;
}

/// The accepted access keys.
struct Keys;

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> s3s::S3Result<SecretKey> {
        match access_key.starts_with(ACCESS_KEY) {
            true => Ok(SecretKey::from(SECRET_KEY)),
            false => Err(s3s::s3_error!(NotSignedUp, "Your account is not signed up")),
        }
    }
}

async fn serve_with(
    listener: TcpListener,
    root: &Path,
    rate: Option<u64>,
    connections: Arc<AtomicU64>,
    faults: Faults,
    extras: Extras,
) {
    let mut service = S3ServiceBuilder::new(FileSystem::new(root).unwrap());
    service.set_auth(Keys);
    let service = service.build();
    let objects = Objects::default();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        connections.fetch_add(1, Ordering::Relaxed);
        let (service, faults, objects) = (service.clone(), Arc::clone(&faults), objects.clone());
        let (extras, root) = (extras.clone(), root.to_owned());
        let service = service_fn(move |request: Request<Incoming>| {
            let (service, fault) = (service.clone(), due(&faults, &request));
            let (objects, extras, root) = (objects.clone(), extras.clone(), root.clone());
            async move {
                tokio::time::sleep(extras.delay).await;
                let refused = |status: u16, code: &str| {
                    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>it is so</Message></Error>");
                    Ok(Response::builder().status(status).body(s3s::Body::from(body)).unwrap())
                };
                match fault {
                    None | Some(Fault::Lost) => {
                        let turn = objects.turn(&request).await;
                        if let Some((status, code)) = extras.roles.refuses(&request).or_else(|| extras.refuses(&request)) {
                            return refused(status, &code);
                        }
                        if let Some(rules) = extras.lifecycle(&request) {
                            return Ok(Response::new(s3s::Body::from(rules)));
                        }
                        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                        let key = header(&request, KMS_KEY);
                        let is_part = matches!(turn, Turn::Part);
                        let executed = async move {
                            let _turn = turn;
                            hyper::service::Service::call(&service, request).await
                        };
                        // S3 executes a request as a whole, even if the client goes away before it ends. But no part appears in an
                        // upload that was aborted: the underlying server would write it, so it ends with its client.
                        let answer = match is_part {
                            true => executed.await,
                            false => tokio::spawn(executed).await.map_err(std::io::Error::other)?,
                        };
                        let mut answer = answer.map_err(|error| std::io::Error::other(format!("{error:?}")))?;
                        extras.tell(&root, &method, &path, key, &mut answer);
                        if fault.is_some() { Err(std::io::Error::other("lost")) } else { Ok(answer) }
                    }
                    Some(Fault::Expired) => refused(403, "ExpiredToken"),
                    Some(Fault::SlowDown) => refused(503, "SlowDown"),
                    Some(Fault::Reset) => Err(std::io::Error::other("reset")),
                    Some(Fault::Stall) => std::future::pending().await,
                }
            }
        });
        tokio::spawn(async move {
            let stream = Limited { stream, rate, sent: 0, began: tokio::time::Instant::now(), pause: None };
            let _ = Builder::new(TokioExecutor::new()).http1_only().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The header with a KMS key, in requests and responses.
const KMS_KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";

fn header(request: &Request<Incoming>, name: &str) -> Option<String> {
    request.headers().get(name)?.to_str().ok().map(str::to_owned)
}

impl Extras {
    /// Returns the error for a request that is not allowed.
    fn refuses(&self, request: &Request<Incoming>) -> Option<(u16, String)> {
        if !matches!(*request.method(), Method::PUT | Method::POST) {
            return None;
        }
        let bucket = self.bucket.lock().unwrap();
        let key = request.uri().path().trim_start_matches('/').split_once('/')?.1;
        if bucket.guarded.iter().any(|prefix| key.starts_with(prefix)) {
            return Some((403, "AccessDenied".to_owned()));
        }
        match header(request, KMS_KEY) {
            Some(key) if bucket.keys.contains(&&*key) => None,
            Some(key) if key.contains("denied") => Some((
                403,
                "AccessDenied</Code><Message>not authorized to perform: kms:GenerateDataKey</Message><Code>".to_owned(),
            )),
            Some(_) => Some((400, "KMS.NotFoundException".to_owned())),
            None => None,
        }
    }

    /// Returns the response to a request for the lifecycle rules.
    fn lifecycle(&self, request: &Request<Incoming>) -> Option<String> {
        request.uri().query().filter(|query| query.split('&').any(|part| part == "lifecycle" || part == "lifecycle="))?;
        self.bucket.lock().unwrap().lifecycle.clone()
    }

    /// Adds the bucket's properties to the server's response.
    fn tell(&self, root: &Path, method: &Method, path: &str, key: Option<String>, answer: &mut Response<s3s::Body>) {
        let mut encrypted = self.encrypted.lock().unwrap();
        if *method == Method::PUT && answer.status().is_success() {
            let behind = self.bucket.lock().unwrap().behind;
            let file = std::fs::File::options().write(true).open(root.join(path.trim_start_matches('/')));
            if let Some(file) = file.ok().filter(|_| !behind.is_zero()) {
                file.set_modified(std::time::SystemTime::now() - behind).unwrap();
            }
            key.map(|key| encrypted.insert(path.to_owned(), key));
        }
        if let Some(key) = encrypted.get(path).filter(|_| matches!(*method, Method::GET | Method::HEAD)) {
            answer.headers_mut().insert("x-amz-server-side-encryption", "aws:kms".parse().unwrap());
            answer.headers_mut().insert(KMS_KEY, key.parse().unwrap());
        }
    }
}

/// A lock for each object. S3 replaces an object atomically. The underlying server writes the bytes and then the checksum, which
/// two parallel requests would mix up.
#[derive(Clone, Default)]
struct Objects(Arc<Mutex<HashMap<String, Arc<RwLock<()>>>>>);

/// The lock of a request while it is processed.
enum Turn {
    Reads {
        _turn: OwnedRwLockReadGuard<()>,
    },
    Writes {
        _turn: OwnedRwLockWriteGuard<()>,
    },
    /// A part of an upload needs no lock, because it is not the object yet.
    Part,
}

impl Objects {
    async fn turn(&self, request: &Request<Incoming>) -> Turn {
        if request.uri().query().is_some_and(|query| query.contains("partNumber")) {
            return Turn::Part;
        }
        let object = Arc::clone(self.0.lock().unwrap().entry(request.uri().path().to_owned()).or_default());
        match *request.method() {
            Method::GET | Method::HEAD => Turn::Reads { _turn: object.read_owned().await },
            _ => Turn::Writes { _turn: object.write_owned().await },
        }
    }
}

/// Returns the fault of this request, if there is one.
fn due(faults: &Faults, request: &Request<Incoming>) -> Option<Fault> {
    let mut faults = faults.lock().unwrap();
    let is_meant = |breaks: &&mut Breaks| breaks.method == *request.method() && request.uri().path().contains(&breaks.below);
    let breaks = faults.as_mut().filter(is_meant)?;
    if breaks.left == 0 {
        return Some(breaks.fault);
    }
    breaks.left -= 1;
    None
}

/// A connection that sends at most this many bytes a second.
struct Limited {
    stream: TcpStream,
    rate: Option<u64>,
    sent: u64,
    began: tokio::time::Instant,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl AsyncRead for Limited {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Limited {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let Some(rate) = self.rate else { return Pin::new(&mut self.stream).poll_write(cx, bytes) };
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let part = bytes.len().min(64 << 10);
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[..part]))?;
        self.sent += written as u64;
        #[allow(clippy::cast_precision_loss)]
        let due = self.began + Duration::from_secs_f64(self.sent as f64 / rate as f64);
        let now = tokio::time::Instant::now();
        // An idle connection must not send faster afterwards.
        if due + Duration::from_millis(50) < now {
            self.began = now;
            self.sent = 0;
        } else if due > now {
            self.pause = Some(Box::pin(tokio::time::sleep_until(due)));
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
