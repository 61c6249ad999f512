//! A proxy between hakobi and a server over HTTP: S3 or a registry. A rule chooses a fault for each request.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// A fault of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The response comes later.
    Delay(Duration),
    /// The server does not get the request, and no response comes.
    Stall,
    /// The server does not get the request, and the connection breaks.
    Reset,
    /// The server executes the request, and the connection breaks before the response.
    Lost,
    /// The server executes the request, and no response comes.
    StallAfter,
    /// The body of the response breaks off in the middle.
    Truncate,
    /// One bit in the body of the response is another one.
    Flip,
    /// The object changed: a request with `If-Match` fails, and another one gets another ETag.
    OtherEtag,
    /// S3's clock is this much ahead, so it refuses the request.
    Skewed(Duration),
    /// The server does not get the request. The response has this status and this body, and `Retry-After: 1` if it is a 429.
    Answer(u16, String),
}

impl Fault {
    /// Returns an error of S3 with this status and code.
    pub fn s3(status: u16, code: &str) -> Self {
        Self::Answer(status, format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>it is so</Message></Error>"))
    }

    /// Returns an error of a registry with this status and code.
    pub fn registry(status: u16, code: &str) -> Self {
        Self::Answer(status, serde_json::json!({ "errors": [{ "code": code, "message": "it is so" }] }).to_string())
    }
}

/// A request that the proxy got.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its number, from 0.
    pub number: u64,
    pub method: Method,
    /// Its path and query.
    pub target: String,
}

type Rule = Box<dyn FnMut(&Asked) -> Option<Fault> + Send>;
type Body = UnsyncBoxBody<Bytes, io::Error>;

struct Shared {
    upstream: String,
    client: Client<HttpConnector, Body>,
    rule: Mutex<Rule>,
    asked: AtomicU64,
    faulted: Mutex<Option<Asked>>,
}

/// The proxy. It stops when this value is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl FaultProxy {
    /// Starts a proxy for the server at `upstream` (`host:port`). It has no faults yet.
    pub fn start(upstream: &str) -> Self {
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            rule: Mutex::new(Box::new(|_| None)),
            asked: AtomicU64::new(0),
            faulted: Mutex::new(None),
        });
        let own = Arc::clone(&shared);
        let (address, stop) = super::background::serve(move |listener| serve(listener, own));
        Self { address, shared, _stop: stop }
    }

    /// Returns its `host:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Sets the rule for the requests from now on.
    pub fn set(&self, rule: impl FnMut(&Asked) -> Option<Fault> + Send + 'static) {
        *self.shared.rule.lock().unwrap() = Box::new(rule);
    }

    /// Ends all faults.
    pub fn mend(&self) {
        self.set(|_| None);
    }

    /// Gives the request with this number, counted from now, a fault. Returns whether it has come.
    pub fn fault_at(&self, number: u64, fault: Fault) -> Arc<AtomicBool> {
        let (first, came) = (self.asked(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&came);
        self.set(move |asked: &Asked| {
            (asked.number == first + number).then(|| {
                told.store(true, Ordering::SeqCst);
                fault.clone()
            })
        });
        came
    }

    /// Returns the last request that got a fault.
    pub fn faulted(&self) -> Option<Asked> {
        self.shared.faulted.lock().unwrap().clone()
    }

    /// Returns the number of requests so far.
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let asked = Asked {
        number: shared.asked.fetch_add(1, Ordering::SeqCst),
        method: request.method().clone(),
        target: request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned(),
    };
    let fault = (shared.rule.lock().unwrap())(&asked);
    if fault.is_some() {
        *shared.faulted.lock().unwrap() = Some(asked.clone());
    }
    match &fault {
        Some(Fault::Stall) => std::future::pending().await,
        Some(Fault::Reset) => return Err(io::Error::other("reset")),
        Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
        Some(Fault::Answer(status, text)) => return said(request, *status, text).await,
        Some(Fault::Skewed(ahead)) => {
            let Fault::Answer(status, text) = Fault::s3(403, "RequestTimeTooSkewed") else { unreachable!() };
            let date = jiff::fmt::rfc2822::DateTimePrinter::new();
            let date = date.timestamp_to_rfc9110_string(&(jiff::Timestamp::now() + *ahead)).map_err(io::Error::other)?;
            let mut refused = said(request, status, &text).await?;
            refused.headers_mut().insert("date", HeaderValue::try_from(date).map_err(io::Error::other)?);
            return Ok(refused);
        }
        Some(Fault::OtherEtag) if request.headers().contains_key("if-match") => {
            let Fault::Answer(status, text) = Fault::s3(412, "PreconditionFailed") else { unreachable!() };
            return said(request, status, &text).await;
        }
        _ => {}
    }
    let reply = forward(&shared, request, &asked.target).await?;
    match &fault {
        Some(Fault::Lost) => return Err(io::Error::other("lost")),
        Some(Fault::StallAfter) => std::future::pending().await,
        _ => {}
    }
    Ok(changed(reply, fault.as_ref()))
}

/// Reads the request and returns an error, like a server that refuses after it has read.
async fn said(request: Request<Incoming>, status: u16, text: &str) -> io::Result<Response<Body>> {
    let is_head = request.method() == Method::HEAD;
    let _ = request.into_body().collect().await;
    let mut response = Response::builder().status(status);
    if status == 429 {
        response = response.header("retry-after", "1");
    }
    let text = if is_head { Bytes::new() } else { Bytes::from(text.to_owned()) };
    response.body(body(stream::iter([Ok(text)]))).map_err(io::Error::other)
}

async fn forward(shared: &Shared, request: Request<Incoming>, target: &str) -> io::Result<Response<Incoming>> {
    // S3's signature includes the header with the host, and a registry puts it into `Location`, so it stays that of the proxy.
    let (mut parts, incoming) = request.into_parts();
    parts.uri = format!("http://{}{target}", shared.upstream).parse().map_err(io::Error::other)?;
    parts.headers.remove("connection");
    let sent = Request::from_parts(parts, incoming.map_err(io::Error::other).boxed_unsync());
    shared.client.request(sent).await.map_err(io::Error::other)
}

fn changed(reply: Response<Incoming>, fault: Option<&Fault>) -> Response<Body> {
    let (mut parts, incoming) = reply.into_parts();
    if fault == Some(&Fault::OtherEtag) && parts.headers.contains_key("etag") {
        parts.headers.insert("etag", HeaderValue::from_static("\"00000000000000000000000000000000\""));
    }
    let at = incoming.size_hint().exact().unwrap_or(0) / 2;
    let bytes = incoming.into_data_stream().map(|bytes| bytes.map_err(io::Error::other));
    Response::from_parts(
        parts,
        match fault {
            Some(Fault::Truncate) => body(Damaged { inner: bytes, at, seen: 0, flips: false }),
            Some(Fault::Flip) => body(Damaged { inner: bytes, at, seen: 0, flips: true }),
            _ => body(bytes),
        },
    )
}

fn body(bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(bytes.map(|bytes| bytes.map(Frame::data))).boxed_unsync()
}

/// A body with a fault at one byte.
struct Damaged<S> {
    inner: S,
    at: u64,
    seen: u64,
    /// Whether a bit is flipped there. Otherwise the body ends there.
    flips: bool,
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> Stream for Damaged<S> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(Ok(bytes)) = std::task::ready!(self.inner.poll_next_unpin(cx)) else { return Poll::Ready(None) };
        let (before, at) = (self.seen, self.at);
        self.seen += bytes.len() as u64;
        if before > at || self.seen <= at {
            return Poll::Ready(Some(Ok(bytes)));
        }
        if !self.flips {
            return Poll::Ready(Some(Err(io::Error::other("cut off"))));
        }
        let mut bytes = bytes.to_vec();
        bytes[usize::try_from(at - before).unwrap()] ^= 1;
        Poll::Ready(Some(Ok(bytes.into())))
    }
}
