//! A file on a server: whether it is still the one that is known, or what it is now (BuildKit `source/http`).

use std::io::{self, Write as _};
use std::time::Duration;

use flate2::write::GzDecoder;
use futures::StreamExt as _;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, HeaderMap, HeaderName, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Method, Response, StatusCode, Url};

use crate::debug::Request;
use crate::domain::{Digest, Hasher};
use crate::registry::install_crypto;

/// A server that sends nothing for so long has none of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is known of a file already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// What the server called it, without the mark of a weak one.
    pub etag: String,
    /// `Last-Modified`, as the server said it; empty where it did not.
    pub modified: String,
    /// Of its bytes.
    pub content: Digest,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What there is.
    pub version: Version,
    /// Whether it had to be read to know.
    pub was_read: bool,
}

/// Asks servers.
#[derive(Debug)]
pub struct Client {
    outside: reqwest::Client,
    /// For this machine itself: no proxy is on the way.
    loopback: reqwest::Client,
}

impl Client {
    /// A client.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
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

    /// What a file is now. One whose server still calls it by the known name is not read.
    ///
    /// # Errors
    /// Why that cannot be told.
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

    /// Some servers answer `If-None-Match` wrongly though they give names: the names are compared here. One that says that nothing
    /// changed and gives no name means the only one it was asked for.
    async fn is_still(&self, url: &Url, known: &Version) -> bool {
        let Ok(response) = self.ask(Method::HEAD, url, Some(&known.etag)).await else { return false };
        let etag = text(response.headers(), &ETAG);
        match response.status() {
            StatusCode::OK => without_weak(&etag) == known.etag,
            StatusCode::NOT_MODIFIED => etag.is_empty() || without_weak(&etag) == known.etag,
            _ => false,
        }
    }

    /// Servers name a file by its encoding too, so that all requests ask for the same.
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

/// The digest of the bytes, as they are without the server's encoding.
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

/// What went wrong, without the URL: it may be a signed one.
fn describe(error: &reqwest::Error) -> String {
    match (error.is_timeout(), error.is_connect(), error.is_redirect()) {
        (true, _, _) => "its server did not answer in time".to_owned(),
        (_, true, _) => "failed to reach its server".to_owned(),
        (_, _, true) => "its server redirects in a loop".to_owned(),
        _ => "the connection to its server broke".to_owned(),
    }
}
