//! Opens byte streams to the daemon: a Unix socket, TCP with or without TLS, or an `ssh` process.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::operations::Operations;
use super::tls;
use crate::error::{Error, Result};
use crate::settings::{DaemonEndpoint, DaemonTls};

/// Both directions of a connection to the daemon.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection to the daemon.
pub type Stream = Box<dyn Duplex>;

/// The parsed address of the daemon.
#[derive(Debug, Clone)]
pub struct Dialer {
    address: Address,
    origin: String,
    operations: Operations,
}

#[derive(Debug, Clone)]
enum Address {
    Unix(PathBuf),
    Tcp { host: String, port: u16, tls: Option<DaemonTls> },
    Ssh { user: Option<String>, host: String, port: Option<u16>, path: Option<String> },
}

impl Dialer {
    /// Reads the endpoint's URL.
    ///
    /// # Errors
    /// If hakobi does not support this kind of URL.
    pub fn new(endpoint: &DaemonEndpoint) -> Result<Self> {
        let origin = format!("{} (from {})", endpoint.url, endpoint.origin);
        let bad = |why: &str| Error::usage(format!("invalid address of the Docker daemon `{}`: {why}", endpoint.url));
        let (scheme, rest) = endpoint
            .url
            .split_once("://")
            .ok_or_else(|| bad("it has no scheme").hint("use unix:///var/run/docker.sock, tcp://HOST:2376 or ssh://USER@HOST"))?;
        let address = match scheme {
            "unix" => Address::Unix(PathBuf::from(rest)),
            "tcp" | "http" | "https" => {
                let authority = rest.trim_end_matches('/');
                let default = if endpoint.tls.is_some() || scheme == "https" { 2376 } else { 2375 };
                let (host, port) = host_port(authority, default).ok_or_else(|| bad("its port is not a number"))?;
                let tls = endpoint.tls.clone().or_else(|| (scheme == "https").then(DaemonTls::default));
                Address::Tcp { host, port, tls }
            }
            "ssh" => {
                let (authority, path) = rest.split_once('/').map_or((rest, None), |(a, p)| (a, Some(format!("/{p}"))));
                let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u.to_owned()), h));
                let (host, port) = match host.rsplit_once(':') {
                    Some((host, port)) => (host, Some(port.parse().map_err(|_| bad("its port is not a number"))?)),
                    None => (host, None),
                };
                if host.is_empty() || host.starts_with('-') || user.as_ref().is_some_and(|u| u.starts_with('-')) {
                    return Err(bad("its host or user is empty or starts with `-`"));
                }
                let path = path.filter(|path| path != "/");
                Address::Ssh { user, host: host.to_owned(), port, path }
            }
            other => return Err(bad(&format!("unknown scheme `{other}` (supported are unix, tcp and ssh)"))),
        };
        Ok(Self { address, origin, operations: Operations::default() })
    }

    /// Returns the address and its origin, for messages.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the operations that this daemon runs for hakobi.
    pub(super) fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Returns the hint for a daemon that does not answer at this address.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match &self.address {
            Address::Unix(_) => {
                "start it, and allow this user to use its socket; in CodeBuild, enable privileged mode for the project"
            }
            Address::Tcp { tls: None, .. } => {
                "start it, and check its address; if it requires TLS, set DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"
            }
            Address::Tcp { tls: Some(_), .. } => "start it, and check its address and the certificates in DOCKER_CERT_PATH",
            Address::Ssh { .. } => "start it, and check that `ssh` logs in to its host without a password",
        }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// If hakobi cannot reach the daemon.
    pub async fn dial(&self) -> io::Result<Stream> {
        match &self.address {
            Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Address::Tcp { host, port, tls: None } => Ok(Box::new(tcp(host, *port).await?)),
            Address::Tcp { host, port, tls: Some(tls) } => {
                let stream = tcp(host, *port).await?;
                Ok(Box::new(tls::connect(tls, host, stream).await?))
            }
            Address::Ssh { user, host, port, path } => {
                let mut command = Command::new("ssh");
                command.args(["-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3", "-T"]);
                if let Some(user) = user {
                    command.args(["-l", user]);
                }
                if let Some(port) = port {
                    command.args(["-p", &port.to_string()]);
                }
                command.args(["--", host, "docker"]);
                if let Some(path) = path {
                    command.arg(format!("--host=unix://{path}"));
                }
                command.args(["system", "dial-stdio"]);
                let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
                match (child.stdin.take(), child.stdout.take()) {
                    (Some(stdin), Some(stdout)) => Ok(Box::new(Piped { stdin, stdout, _child: child })),
                    _ => Err(io::Error::other("ssh has no pipes")),
                }
            }
        }
    }
}

fn host_port(authority: &str, default: u16) -> Option<(String, u16)> {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?)),
        _ => Some((authority.trim_matches(['[', ']']).to_owned(), default)),
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    // Some systems do not know all of these options.
    if let Err(error) = keep_alive(&stream) {
        tracing::debug!(%error, "the connection to the daemon has no keepalive");
    }
    Ok(stream)
}

/// Lets the kernel find out that the other side is gone. A daemon may be silent for as long as a step runs, and a network may drop a
/// connection without a word.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(15))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5))?;
    sockopt::set_tcp_keepcnt(stream, 6)?;
    // The same for bytes that were sent and never confirmed, in milliseconds. It also ends a connection whose other side is alive but
    // reads nothing for so long, so it is generous.
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, 180_000)?;
    Ok(())
}

/// The pipes of a process, as one stream.
struct Piped {
    stdin: ChildStdin,
    stdout: ChildStdout,
    _child: Child,
}

impl AsyncRead for Piped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for Piped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialer(url: &str) -> Result<Dialer> {
        Dialer::new(&DaemonEndpoint { url: url.to_owned(), tls: None, origin: "DOCKER_HOST".to_owned() })
    }

    #[test]
    fn addresses_are_understood() {
        for url in ["unix:///x.sock", "tcp://h:1", "tcp://[::1]:2375", "tcp://h", "ssh://u@h", "ssh://h:22/run/docker.sock"] {
            assert!(dialer(url).is_ok(), "{url}");
        }
        for url in ["", "x", "npipe:////./pipe/docker_engine", "ssh://-oProxyCommand=x", "tcp://h:x", "fd://"] {
            assert!(dialer(url).is_err(), "{url}");
        }
    }
}
