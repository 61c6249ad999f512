//! Answers of the loopback registry.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::domain::RawManifest;

pub(super) type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

pub(super) type Answer = Response<Body>;

/// An error of the protocol: its status, code and message.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) &'static str, pub(super) String);

/// Returns the answer with a manifest; for HEAD, only its headers.
pub(super) fn manifest_answer(manifest: RawManifest, request: &Request<Incoming>) -> Answer {
    let headers = [
        ("Content-Type", manifest.media_type.clone()),
        ("Content-Length", manifest.bytes.len().to_string()),
        ("Docker-Content-Digest", manifest.digest().to_string()),
    ];
    let mut answer = answer(StatusCode::OK, &headers);
    if request.method() == Method::GET {
        *answer.body_mut() = full(manifest.bytes);
    }
    answer
}

pub(super) fn full(bytes: Bytes) -> Body {
    http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn answer(status: StatusCode, headers: &[(&'static str, String)]) -> Answer {
    let mut answer = Response::new(full(Bytes::new()));
    *answer.status_mut() = status;
    for (name, value) in headers {
        if let Ok(value) = header::HeaderValue::from_str(value) {
            answer.headers_mut().insert(*name, value);
        }
    }
    answer
}
