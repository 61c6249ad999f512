//! The endpoint's connections: how many there may be, and how long each may take.
//!
//! Any process of this host can connect. A client that does not know the secret path gets a connection only for some seconds, and
//! few such clients are served at once. So it cannot block the daemon or use up the process's file descriptors.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::http::Handler;

/// Most connections at once. A daemon has some 10.
const CONNECTIONS: usize = 256;

/// Most connections at once that have not sent the secret path.
const STRANGERS: usize = 64;

/// How long a connection may last without sending the secret path.
pub(super) const STRANGER: Duration = Duration::from_secs(5);

/// How long the headers of a request may take, and how long a connection may be idle before them. Go's clients close an idle
/// connection themselves after 30 to 90 seconds.
const HEADERS: Duration = Duration::from_secs(120);

/// Largest headers of a request, in bytes.
const HEADERS_LIMIT: usize = 64 << 10;

/// Most headers of a request.
const MOST_HEADERS: usize = 64;

/// How long to wait after `accept` failed: file descriptors may become free meanwhile.
const AGAIN: Duration = Duration::from_millis(50);

/// A source of connections.
pub(super) trait Accepts: Send {
    /// Returns the next connection.
    fn accept(&mut self) -> impl Future<Output = io::Result<TcpStream>> + Send;
}

impl Accepts for TcpListener {
    async fn accept(&mut self) -> io::Result<TcpStream> {
        TcpListener::accept(self).await.map(|(stream, _)| stream)
    }
}

/// A connection that has not sent the secret path.
struct Stranger {
    knows: Arc<AtomicBool>,
    task: AbortHandle,
}

/// Serves connections until the task is dropped; that drops the connections too. A connection without the secret path lasts
/// `stranger_for`, or less if there are many: a client that knows the word sends it at once.
pub(super) async fn accept(mut listener: impl Accepts, handler: Arc<Handler>, stranger_for: Duration) {
    let all = Arc::new(Semaphore::new(CONNECTIONS));
    let mut strangers: VecDeque<Stranger> = VecDeque::new();
    let mut connections = JoinSet::new();
    // Nobody closes the semaphore.
    while let Ok(place) = Arc::clone(&all).acquire_owned().await {
        match listener.accept().await {
            Ok(stream) => {
                strangers.retain(|stranger| !stranger.task.is_finished() && !stranger.knows.load(Ordering::Relaxed));
                if strangers.len() >= STRANGERS
                    && let Some(oldest) = strangers.pop_front()
                {
                    oldest.task.abort();
                }
                let (handler, knows) = (Arc::clone(&handler), Arc::new(AtomicBool::new(false)));
                let shown = Arc::clone(&knows);
                let task = connections.spawn(async move {
                    serve(stream, handler, shown, stranger_for).await;
                    drop(place);
                });
                strangers.push_back(Stranger { knows, task });
            }
            // The connection was reset, or there is no file descriptor left: the next one may work.
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, handler: Arc<Handler>, knows: Arc<AtomicBool>, stranger_for: Duration) {
    let _ = stream.set_nodelay(true);
    let shown = Arc::clone(&knows);
    let service = service_fn(move |request| {
        let (handler, shown) = (Arc::clone(&handler), Arc::clone(&shown));
        async move {
            if handler.is_addressed(&request) {
                shown.store(true, Ordering::Relaxed);
            }
            handler.handle(request).await
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(HEADERS_LIMIT).max_headers(MOST_HEADERS);
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
    let ends = Instant::now() + stranger_for;
    tokio::select! {
        _ = &mut connection => return,
        () = tokio::time::sleep_until(ends) => {}
    }
    if knows.load(Ordering::Relaxed) {
        let _ = connection.await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::PathBuf;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::local_registry::pull::{Repositories, Served};

    /// How long strangers may stay in these tests.
    const BRIEF: Duration = Duration::from_millis(500);

    /// A listener that fails at first, like one without file descriptors.
    struct Failing(TcpListener, usize);

    impl Accepts for Failing {
        async fn accept(&mut self) -> io::Result<TcpStream> {
            match self.1.checked_sub(1) {
                Some(left) => {
                    self.1 = left;
                    Err(io::Error::from_raw_os_error(24))
                }
                None => Accepts::accept(&mut self.0).await,
            }
        }
    }

    async fn started(fails: usize) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let repositories = Repositories::new("word", Vec::new(), Served::default());
        let handler = Handler::new("word".to_owned(), repositories, None, PathBuf::new(), Arc::default(), Default::default());
        let handler = Arc::new(handler);
        (address, tokio::spawn(accept(Failing(listener, fails), handler, BRIEF)))
    }

    async fn asked(stream: &mut TcpStream, head: &str) -> String {
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await.unwrap_or(0);
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    #[tokio::test]
    async fn it_goes_on_after_accept_failed() {
        let (address, _task) = started(3).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(asked(&mut stream, "GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn strangers_are_few_and_go_again() {
        let (address, _task) = started(0).await;
        let mut strangers = Vec::new();
        for _ in 0..4 * STRANGERS {
            strangers.push(TcpStream::connect(address).await.unwrap());
        }
        let began = Instant::now();
        let mut known = TcpStream::connect(address).await.unwrap();
        let get = "GET /v2/word/image/manifests/x HTTP/1.1\r\nhost: x\r\n\r\n";
        assert!(asked(&mut known, get).await.starts_with("HTTP/1.1 404"), "it has its turn");
        assert!(began.elapsed() < BRIEF, "{:?}", began.elapsed());
        // Connections without the secret path are closed; the others stay.
        let mut end = [0];
        assert_eq!(strangers[0].read(&mut end).await.unwrap_or(0), 0);
        tokio::time::sleep(2 * BRIEF).await;
        assert!(asked(&mut known, get).await.starts_with("HTTP/1.1 404"), "it is still there");
    }

    #[tokio::test]
    async fn headers_have_limits() {
        let (address, _task) = started(0).await;
        for head in [
            format!("GET /v2/ HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(2 * HEADERS_LIMIT)),
            format!("GET /v2/ HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(2 * MOST_HEADERS)),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(head.as_bytes()).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        }
    }
}
