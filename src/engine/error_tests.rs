//! Snapshots of the daemon's errors with their hints. A small server plays the daemon.

use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::buildkit::{BuildKit, SshAgents};
use super::{Dialer, Docker};
use crate::error::{Error, shown};
use crate::settings::{DaemonEndpoint, DaemonTls, SshSource};

fn told(error: &Error) -> String {
    format!("{:?} {}", error.kind(), shown(error, error.hint_text()))
}

fn dialer(url: &str, tls: Option<DaemonTls>) -> Result<Dialer, Error> {
    Dialer::new(&DaemonEndpoint { url: url.to_owned(), tls, origin: "DOCKER_HOST".to_owned() })
}

/// Starts a daemon that states its version and answers all other requests with this status and message. Returns its address.
async fn daemon(status: &'static str, message: &str) -> String {
    daemon_saying(status, format!(r#"{{"message":"{message}"}}"#)).await
}

/// Starts a daemon that states its version and answers all other requests with this status and body. Returns its address.
async fn daemon_saying(status: &'static str, body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(respond(stream, status, body.clone()));
        }
    });
    address
}

async fn respond(mut stream: TcpStream, status: &str, body: String) {
    let mut head = [0; 4096];
    let read = stream.read(&mut head).await.unwrap_or_default();
    let head = String::from_utf8_lossy(&head[..read]).into_owned();
    let (status, body) = match () {
        () if head.contains("/_ping") => ("200 OK", "OK".to_owned()),
        () if head.contains("/version ") => ("200 OK", r#"{"Version":"20.10.24","ApiVersion":"1.41"}"#.to_owned()),
        () => (status, body),
    };
    let headers = format!("api-version: 1.41\r\nconnection: close\r\ncontent-length: {}", body.len());
    let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n{headers}\r\n\r\n{body}").as_bytes()).await;
    // A connection that closes with unread bytes loses the answer.
    let _ = stream.shutdown().await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

#[test]
fn addresses() {
    let mut out = String::new();
    for url in
        ["docker.sock", "npipe:////./pipe/docker_engine", "tcp://host:x", "ssh://host:x", "ssh://-oProxyCommand=x", "ssh://"]
    {
        out.push_str(&told(&dialer(url, None).expect_err("refused")));
    }
    out.push_str(dialer("ssh://user@host", None).expect("an address").hint());
    insta::assert_snapshot!("addresses", out);
}

#[tokio::test]
async fn connections() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str| Some(directory.path().join(name));
    std::fs::write(directory.path().join("text.pem"), "no certificate").expect("written");
    let plain = daemon("404 Not Found", "page not found").await;
    let connect = async |url: &str, tls: Option<DaemonTls>| {
        told(&Docker::connect(dialer(url, tls).expect("an address")).await.err().expect("no daemon"))
    };
    let mut out = connect(&format!("unix://{}", directory.path().join("docker.sock").display()), None).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("an address").to_string();
    out.push_str(&connect(&format!("tcp://{nobody}"), None).await);
    let url = format!("tcp://{plain}");
    for tls in [
        DaemonTls::default(),
        DaemonTls { ca: file("missing.pem"), ..DaemonTls::default() },
        DaemonTls { skip_verify: true, cert: file("text.pem"), key: file("text.pem"), ..DaemonTls::default() },
    ] {
        out.push_str(&connect(&url, Some(tls)).await);
    }
    let dialer = dialer(&url, None).expect("an address");
    out.push_str(&told(&BuildKit::connect(&dialer, (1, 41)).await.err().expect("no BuildKit")));
    let out = out
        .replace(&plain, "127.0.0.1:PORT")
        .replace(&nobody, "127.0.0.1:PORT")
        .replace(&*directory.path().to_string_lossy(), "DIR");
    insta::assert_snapshot!("connections", out);
}

#[tokio::test]
async fn requests() {
    let address = daemon("500 Internal Server Error", "the disk is full").await;
    let docker = Docker::connect(dialer(&format!("tcp://{address}"), None).expect("an address")).await.expect("connected");
    let (ours, name) = ("hakobi.local/x:1".parse().expect("a name"), "app:1".parse().expect("a name"));
    let mut out = told(&docker.info().await.expect_err("refused"));
    out.push_str(&told(&docker.image_id("app:1").await.expect_err("refused")));
    out.push_str(&told(&docker.names().await.expect_err("refused")));
    out.push_str(&told(&docker.tag("app:1", &name).await.expect_err("refused")));
    out.push_str(&told(&docker.untag(&name).await.expect_err("refused")));
    out.push_str(&told(&docker.push(&name).await.expect_err("refused")));
    out.push_str(&told(&docker.pull_as(&ours, &name).await.expect_err("refused")));
    out.push_str(&told(&docker.load(Box::pin(std::io::Cursor::new("x"))).await.expect_err("refused")));
    out.push_str(&told(&docker.went_away("broken pipe").await));
    insta::assert_snapshot!("requests", out.replace(&address, "127.0.0.1:PORT"));
}

#[tokio::test]
async fn names() {
    let name = "hakobi.local/x:1".parse().expect("a name");
    let connect = async |address: String| Docker::connect(dialer(&format!("tcp://{address}"), None).expect("an address")).await;
    let gone = connect(daemon("404 Not Found", "No such image").await).await.expect("connected");
    gone.untag(&name).await.expect("a name that another run has removed");
    let named = async |time: &str| {
        let image = format!(r#"{{"Metadata":{{"LastTagTime":"{time}"}}}}"#);
        connect(daemon_saying("200 OK", image).await).await.expect("connected").named_for(&name).await
    };
    assert!(named("2024-01-01T00:00:00Z").await.is_some_and(|age| age.as_secs() > 1_000_000));
    assert_eq!(named("0001-01-01T00:00:00Z").await, None);
}

#[tokio::test]
async fn ssh_agents() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("agent.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    std::fs::write(directory.path().join("key"), "no key").expect("written");
    let source =
        |paths: &[&Path]| SshSource { id: "git".to_owned(), paths: paths.iter().map(|path| path.to_path_buf()).collect() };
    let mut out = String::new();
    for source in [source(&[&directory.path().join("missing")]), source(&[&socket, &directory.path().join("key")]), source(&[])] {
        out.push_str(&told(&SshAgents::open(&[source]).await.err().expect("refused")));
    }
    insta::assert_snapshot!("ssh-agents", out.replace(&*directory.path().to_string_lossy(), "DIR"));
}
