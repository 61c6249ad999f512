//! A server on this host with fixed answers, for tests of errors.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Starts a server that answers each request by its head (`GET /v2/ HTTP/1.1`, the headers). Returns its address, such as
/// `127.0.0.1:5000`. It ends with the test.
pub async fn serve(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let address = listener.local_addr().expect("an address").to_string();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move { respond(stream, &*answer).await });
        }
    });
    address
}

/// Returns an answer with this status (`404 Not Found`), headers (each with a line break) and body.
pub fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

/// Returns an error of the distribution specification as an answer.
pub fn refusal(status: &str, code: &str, message: &str) -> String {
    answer(status, "", &format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#))
}

/// Returns an address at which no server listens.
pub async fn nobody() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    listener.local_addr().expect("an address").to_string()
}

async fn respond(mut stream: TcpStream, answer: &(dyn Fn(&str) -> String + Send + Sync)) {
    let mut read = Vec::new();
    let end = loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        // TLS gets an answer too.
        if !read.first().is_none_or(u8::is_ascii_uppercase) {
            break read.len();
        }
        if !stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
            return;
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut rest = length.unwrap_or(0_usize).saturating_sub(read.len().saturating_sub(end + 4));
    while rest > 0 {
        match stream.read(&mut vec![0; rest]).await {
            Ok(count) if count > 0 => rest -= count,
            _ => return,
        }
    }
    let _ = stream.write_all(answer(&head).as_bytes()).await;
    // A connection that closes with unread bytes loses the answer.
    let _ = stream.shutdown().await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}
