//! A small HTTP server on a loopback port whose responses come from a function, and a proxy for a real registry.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

pub type Answer = Response<Full<Bytes>>;

/// The response of a script to a request.
pub enum Say {
    /// This response.
    This(Answer),
    /// No response: the connection is cut.
    Cut,
}

/// A server. It stops when this value is dropped.
pub struct Server {
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a server with this script. The script reads the body of a request itself.
pub async fn serve<F>(script: F) -> Server
where
    F: Fn(Request<Incoming>) -> BoxFuture<'static, Say> + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let script = Arc::new(script);
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let script = Arc::clone(&script);
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let said = script(request);
                    async move {
                        match said.await {
                            Say::This(answer) => Ok::<_, std::io::Error>(answer),
                            Say::Cut => Err(std::io::Error::other("cut by the script")),
                        }
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Server { address, task }
}

/// Returns a response with a status, headers and a body.
pub fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::new(body.into())).expect("an answer")
}

/// Returns an error in the registry's JSON.
pub fn refusal(status: u16, code: &str, message: &str) -> Answer {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] }).to_string();
    answer(status, &[("content-type", "application/json")], body)
}

/// Reads the whole body of a request.
pub async fn body(request: Request<Incoming>) -> Bytes {
    request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default()
}

/// Reads a body until it ends, breaks off, or has this many bytes.
pub async fn some_body(body: &mut Incoming, enough: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while out.len() < enough {
        match body.frame().await {
            Some(Ok(frame)) => out.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            _ => break,
        }
    }
    out
}

/// Forwards a request to `upstream` (`host:port`) with another path, and returns its response. `Location` in the response points
/// to `own`. The repositories in `upstream` are under `prefix`, which ends with a slash or is empty.
pub async fn forward(request: Request<Incoming>, upstream: &str, own: &str, prefix: &str, login: Option<(&str, &str)>) -> Say {
    let (parts, incoming) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/v2/", |path| path.as_str());
    let there = match path.strip_prefix("/v2/") {
        Some("") | None => path.to_owned(),
        Some(rest) => format!("/v2/{prefix}{rest}").replace("&from=", &format!("&from={prefix}").replace('/', "%2F")),
    };
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let mut headers = parts.headers.clone();
    for name in ["host", "authorization", "transfer-encoding", "connection"] {
        headers.remove(name);
    }
    let length = headers.get("content-length").cloned();
    let mut sent = client.request(parts.method.clone(), format!("http://{upstream}{there}")).headers(headers);
    if matches!(parts.method.as_str(), "PATCH" | "PUT" | "POST") {
        sent = sent.body(reqwest::Body::wrap_stream(incoming.into_data_stream()));
        if let Some(length) = length {
            sent = sent.header("content-length", length);
        }
    }
    if let Some((user, password)) = login {
        sent = sent.basic_auth(user, Some(password));
    }
    let Ok(received) = sent.send().await else { return Say::Cut };
    let mut builder = Response::builder().status(received.status());
    for (name, value) in received.headers() {
        if matches!(name.as_str(), "transfer-encoding" | "connection") {
            continue;
        }
        if name == "location" {
            let text = value.to_str().expect("a location").replace(&format!("http://{upstream}"), &format!("http://{own}"));
            builder = builder.header(name, text.replacen(&format!("/v2/{prefix}"), "/v2/", 1));
        } else if name != "content-length" || parts.method == "HEAD" {
            builder = builder.header(name, value);
        }
    }
    let Ok(body) = received.bytes().await else { return Say::Cut };
    Say::This(builder.body(Full::new(body)).expect("an answer"))
}
