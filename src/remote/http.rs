//! Checks a file on a server: is it still the known version, and if not, which one is it (BuildKit `source/http`)?

use std::io::{self, Write as _};
use std::time::Duration;

use flate2::write::GzDecoder;
use futures::StreamExt as _;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, HeaderMap, HeaderName, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Method, Response, StatusCode, Url};

use crate::debug::Request;
use crate::domain::{Digest, Hasher};
use crate::registry::install_crypto;

/// The time without any data after which a request fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// The known version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The server's ETag, without the prefix of a weak one.
    pub etag: String,
    /// The server's `Last-Modified`, verbatim. Empty if there is none.
    pub modified: String,
    /// The digest of the content.
    pub content: Digest,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The current version.
    pub version: Version,
    /// Whether the file had to be read.
    pub was_read: bool,
}

/// A client for servers.
#[derive(Debug)]
pub struct Client {
    outside: reqwest::Client,
    /// The client for this machine itself, which uses no proxy.
    loopback: reqwest::Client,
}

impl Client {
    /// Creates a client.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new() -> Result<Self, String> {
        install_crypto();
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("hakobi/", env!("CARGO_PKG_VERSION")))
                .http1_only()
                .connect_timeout(PATIENCE)
                .read_timeout(PATIENCE)
                .referer(false)
        };
        let broken = |error: reqwest::Error| describe(&error);
        Ok(Self { outside: builder().build().map_err(broken)?, loopback: builder().no_proxy().build().map_err(broken)? })
    }

    /// Returns the current version of a file. If the ETag is still the known one, the file is not read.
    ///
    /// # Errors
    /// If the version cannot be determined. The text is the reason.
    pub async fn file(&self, url: &str, known: Option<&Version>) -> Result<Found, String> {
        let url: Url = url.parse().map_err(|error| format!("invalid URL: {error}"))?;
        if let Some(known) = known.filter(|known| !known.etag.is_empty())
            && self.is_still(&url, known).await
        {
            return Ok(Found { version: known.clone(), was_read: false });
        }
        let response = self.ask(Method::GET, &url, None).await?;
        if !response.status().is_success() {
            return Err(format!("its server answered {}", response.status()));
        }
        let headers = response.headers().clone();
        let content = content(response).await?;
        let etag = without_weak(&text(&headers, &ETAG)).to_owned();
        let version = Version { etag, modified: text(&headers, &LAST_MODIFIED), content };
        Ok(Found { version, was_read: true })
    }

    /// Returns whether the file still has the known ETag. Some servers answer `If-None-Match` wrongly but send an ETag, so the
    /// ETags are compared here. "Not modified" without an ETag means the known one.
    async fn is_still(&self, url: &Url, known: &Version) -> bool {
        let Ok(response) = self.ask(Method::HEAD, url, Some(&known.etag)).await else { return false };
        let etag = text(response.headers(), &ETAG);
        match response.status() {
            StatusCode::OK => without_weak(&etag) == known.etag,
            StatusCode::NOT_MODIFIED => etag.is_empty() || without_weak(&etag) == known.etag,
            _ => false,
        }
    }

    /// Sends a request. The ETag may depend on the encoding, so all requests accept the same encoding.
    async fn ask(&self, method: Method, url: &Url, etag: Option<&str>) -> Result<Response, String> {
        let is_here = match url.host_str().unwrap_or_default() {
            "localhost" | "[::1]" => true,
            host => host.starts_with("127."),
        };
        let client = if is_here { &self.loopback } else { &self.outside };
        let mut request = client.request(method.clone(), url.clone()).header(ACCEPT_ENCODING, "gzip");
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let shown = Request::new("remote", method.as_str(), url.host_str().unwrap_or_default(), url.path(), 1);
        shown.send(request.send(), |answer| answer.status().as_u16(), describe).await.map_err(|error| describe(&error))
    }
}

/// Returns the digest of the content, without the server's encoding.
async fn content(response: Response) -> Result<Digest, String> {
    let is_packed = text(response.headers(), &CONTENT_ENCODING).eq_ignore_ascii_case("gzip");
    let mut hashing =
        if is_packed { Hashing::Packed(Box::new(GzDecoder::new(Sum::default()))) } else { Hashing::Plain(Sum::default()) };
    let mut body = response.bytes_stream();
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|error| describe(&error))?;
        hashing.write(&bytes).map_err(|error| format!("failed to decompress the server's answer: {error}"))?;
    }
    hashing.digest().map_err(|error| format!("failed to decompress the server's answer: {error}"))
}

enum Hashing {
    Plain(Sum),
    Packed(Box<GzDecoder<Sum>>),
}

impl Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(sum) => sum.write_all(bytes),
            Self::Packed(decoder) => decoder.write_all(bytes),
        }
    }

    fn digest(self) -> io::Result<Digest> {
        Ok(match self {
            Self::Plain(sum) => sum.0.digest(),
            Self::Packed(decoder) => decoder.finish()?.0.digest(),
        })
    }
}

#[derive(Default)]
struct Sum(Hasher);

impl io::Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn without_weak(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

/// Returns the kind of the error without the URL, which may be a signed one.
fn describe(error: &reqwest::Error) -> String {
    match (error.is_timeout(), error.is_connect(), error.is_redirect()) {
        (true, _, _) => "its server did not answer in time".to_owned(),
        (_, true, _) => "failed to reach its server".to_owned(),
        (_, _, true) => "its server redirects in a loop".to_owned(),
        _ => "the connection to its server broke".to_owned(),
    }
}
