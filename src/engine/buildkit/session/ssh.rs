//! SSH agents for `RUN --mount=type=ssh`. hakobi forwards to an agent's socket, and adds keys in files to an agent of its own.
//!
//! A build may only list keys and sign with them. hakobi answers all other requests with a failure, as buildx does.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bollard_buildkit_proto::moby::sshforward::v1 as api;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio_util::io::ReaderStream;
use tonic::{Request, Response, Status, Streaming};

use crate::error::{Error, Result};
use crate::settings::SshSource;
use crate::transfer::Scratch;

/// draft-miller-ssh-agent: the two allowed requests, and the answer to all others.
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
const FAILURE: u8 = 5;

/// The largest message of an agent, in bytes (OpenSSH `MAX_MESSAGE`).
const MESSAGE_LIMIT: u32 = 256 << 10;

/// The agents' sockets by ID, with the agents that hakobi started for keys.
#[derive(Default)]
pub struct SshAgents {
    sockets: HashMap<String, PathBuf>,
    own: Vec<(Child, Scratch)>,
}

impl SshAgents {
    /// Finds or starts an agent for each source.
    ///
    /// # Errors
    /// If a socket or key does not exist, or hakobi cannot add a key to an agent.
    pub async fn open(sources: &[SshSource]) -> Result<Self> {
        let mut out = Self::default();
        for source in sources {
            let mut keys = Vec::new();
            let mut socket = None;
            for path in &source.paths {
                let metadata = std::fs::metadata(path).map_err(|error| {
                    Error::usage(format!("failed to read {} for --ssh {}", path.display(), source.id)).because(&error)
                })?;
                if metadata.file_type().is_socket() { socket = Some(path.clone()) } else { keys.push(path.clone()) }
            }
            let socket = match (socket, keys.is_empty()) {
                (Some(socket), true) => socket,
                (None, false) => out.start(&source.id, &keys).await?,
                (Some(_), false) => {
                    return Err(Error::usage(format!("invalid --ssh {}: keys and an agent's socket cannot be mixed", source.id)));
                }
                (None, true) => {
                    return Err(Error::usage(format!("invalid --ssh {}: no SSH agent found", source.id))
                        .hint("start one with `eval $(ssh-agent)` or name a key file"));
                }
            };
            out.sockets.insert(source.id.clone(), socket);
        }
        Ok(out)
    }

    async fn start(&mut self, id: &str, keys: &[PathBuf]) -> Result<PathBuf> {
        let failed = |error: io::Error| {
            Error::usage(format!("failed to start an SSH agent for the key of --ssh {id}"))
                .because(&error)
                .hint("install OpenSSH's client (ssh-agent, ssh-add)")
        };
        let directory = Scratch::new().map_err(failed)?;
        let socket = directory.path().join("agent.sock");
        let child = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        for _ in 0..100 {
            if socket.exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for key in keys {
            // ssh-add has no terminal and no askpass: a key with a passphrase is an error, not a question.
            let added = Command::new("ssh-add")
                .arg("-q")
                .arg(key)
                .env("SSH_AUTH_SOCK", &socket)
                .env("SSH_ASKPASS_REQUIRE", "never")
                .env_remove("DISPLAY")
                .stdin(Stdio::null())
                .output()
                .await
                .map_err(failed)?;
            if !added.status.success() {
                let words = String::from_utf8_lossy(&added.stderr).trim().to_owned();
                return Err(Error::usage(format!("failed to load the key {} for --ssh {id}: {words}", key.display())));
            }
        }
        self.own.push((child, directory));
        Ok(socket)
    }

    fn socket(&self, id: &str) -> Option<&Path> {
        self.sockets.get(if id.is_empty() { "default" } else { id }).map(PathBuf::as_path)
    }
}

pub(super) struct SshService(SshAgents);

impl SshService {
    pub(super) fn new(agents: SshAgents) -> Self {
        Self(agents)
    }
}

#[tonic::async_trait]
impl api::ssh_server::Ssh for SshService {
    async fn check_agent(&self, request: Request<api::CheckAgentRequest>) -> Result<Response<api::CheckAgentResponse>, Status> {
        let id = request.into_inner().id;
        match self.0.socket(&id) {
            Some(_) => Ok(Response::new(api::CheckAgentResponse {})),
            None => Err(Status::not_found(format!("unset ssh forward key {id}"))),
        }
    }

    type ForwardAgentStream = BoxStream<'static, Result<api::BytesMessage, Status>>;

    async fn forward_agent(
        &self,
        request: Request<Streaming<api::BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = request.metadata().get("buildkit.ssh.id").map(|id| String::from_utf8_lossy(id.as_encoded_bytes()).into_owned());
        let id = id.unwrap_or_default();
        let path = self.0.socket(&id).ok_or_else(|| Status::not_found(format!("unset ssh forward key {id}")))?;
        let agent = UnixStream::connect(path)
            .await
            .map_err(|error| Status::unavailable(format!("the ssh agent at {} does not answer: {error}", path.display())))?;
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(filter(theirs, agent));
        let (from_us, mut to_us) = tokio::io::split(ours);
        let mut messages = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                if to_us.write_all(&message.data).await.is_err() {
                    break;
                }
            }
            let _ = to_us.shutdown().await;
        });
        let answers = ReaderStream::new(from_us).map(|part| match part {
            Ok(data) => Ok(api::BytesMessage { data: data.to_vec() }),
            Err(error) => Err(Status::unknown(error.to_string())),
        });
        Ok(Response::new(answers.boxed()))
    }
}

/// Forwards requests to the agent one by one: the protocol sends one answer to each request, in order.
async fn filter(build: impl AsyncRead + AsyncWrite, mut agent: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut build = Box::pin(build);
    while let Some(request) = read_message(&mut build).await? {
        let answer = match request.first() {
            Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)) => {
                write_message(&mut agent, &request).await?;
                match read_message(&mut agent).await? {
                    Some(answer) => answer,
                    None => break,
                }
            }
            _ => vec![FAILURE],
        };
        write_message(&mut build, &answer).await?;
    }
    Ok(())
}

async fn read_message(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let length = match from.read_u32().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MESSAGE_LIMIT {
        return Err(io::Error::other("a message of the SSH agent is too large"));
    }
    let mut message = vec![0; length as usize];
    from.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn write_message(to: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    to.write_u32(u32::try_from(message.len()).map_err(io::Error::other)?).await?;
    to.write_all(message).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_listing_and_signing_reach_the_agent() {
        let (mut build, theirs) = tokio::io::duplex(1024);
        let (mut agent, socket) = tokio::io::duplex(1024);
        tokio::spawn(filter(theirs, socket));
        // 17 adds a key, 19 removes all keys, 22 locks the agent.
        for request in [17, 19, 22] {
            write_message(&mut build, &[request]).await.expect("written");
            assert_eq!(read_message(&mut build).await.expect("read"), Some(vec![FAILURE]));
        }
        write_message(&mut build, &[REQUEST_IDENTITIES]).await.expect("written");
        assert_eq!(read_message(&mut agent).await.expect("read"), Some(vec![REQUEST_IDENTITIES]));
        write_message(&mut agent, b"keys").await.expect("written");
        assert_eq!(read_message(&mut build).await.expect("read"), Some(b"keys".to_vec()));
    }
}
