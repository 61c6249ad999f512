//! Containers of the gateway: a process in a root and mounts of a running build, with its input and output as streams.

use std::io;

use bollard_buildkit_proto::moby::buildkit::v1::frontend as api;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::exec_message::Input as Message;
use bollard_buildkit_proto::pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::Streaming;

use super::bridge::{Bridge, Reference};
use crate::debug::Request;

/// The largest part of the input in one message, in bytes. Some daemons accept no message above 4 MiB.
const PART: usize = 256 << 10;

/// The parts of the input on their way to the daemon.
const PARTS: usize = 8;

/// The most bytes of the standard error that an error shows.
const SHOWN: usize = 2 << 10;

/// A cache mount of a container. The same ID, base and directory make the same mount as in a step of a Dockerfile.
#[derive(Debug, Clone)]
pub struct ContainerMount {
    /// The place in the container.
    pub target: String,
    /// The ID of the cache.
    pub id: String,
    /// BuildKit's rule for steps that use the mount at the same time (`pb.CacheSharingOpt`).
    pub sharing: i32,
    /// The state that the mount begins with. Its identity is part of the mount's.
    pub base: Option<Reference>,
    /// The directory of the mount that the container sees.
    pub selector: String,
}

/// A container. BuildKit removes it at the latest at the end of the build.
pub struct Container {
    client: Bridge,
    id: String,
}

impl Container {
    pub(super) async fn create(mut client: Bridge, root: &Reference, mounts: Vec<ContainerMount>) -> io::Result<Self> {
        let id = format!("{:032x}", rand::random::<u128>());
        let root = pb::Mount { dest: "/".to_owned(), result_id: root.id.clone(), ..pb::Mount::default() };
        let caches = mounts.into_iter().map(|mount| pb::Mount {
            dest: mount.target,
            result_id: mount.base.map(|base| base.id).unwrap_or_default(),
            selector: mount.selector,
            mount_type: pb::MountType::Cache.into(),
            cache_opt: Some(pb::CacheOpt { id: mount.id, sharing: mount.sharing }),
            ..pb::Mount::default()
        });
        let mounts = std::iter::once(root).chain(caches).collect();
        let request = api::NewContainerRequest {
            container_id: id.clone(),
            mounts,
            network: pb::NetMode::None.into(),
            ..api::NewContainerRequest::default()
        };
        let shown = Request::new("daemon", "POST", "buildkit", "/moby.buildkit.v1.frontend.LLBBridge/NewContainer", 1);
        shown.send(client.new_container(request), |_| 200, |status| status.code().to_string()).await.map_err(refused)?;
        Ok(Self { client, id })
    }

    /// Starts a process as root.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(&mut self, args: Vec<String>) -> io::Result<Process> {
        let (to, messages) = mpsc::channel(PARTS);
        let meta = pb::Meta { args, cwd: "/".to_owned(), user: "0:0".to_owned(), ..pb::Meta::default() };
        let init = api::InitMessage {
            container_id: self.id.clone(),
            meta: Some(meta),
            fds: vec![0, 1, 2],
            ..api::InitMessage::default()
        };
        send(&to, Message::Init(init)).await?;
        let from = self.client.exec_process(ReceiverStream::new(messages)).await.map_err(refused)?.into_inner();
        Ok(Process {
            input: ProcessInput { to, pending: Vec::new() },
            output: ProcessOutput { from, stderr: Vec::new(), exit: None },
        })
    }

    /// Removes the container.
    ///
    /// # Errors
    /// The daemon's error.
    pub async fn release(mut self) -> io::Result<()> {
        let request = api::ReleaseContainerRequest { container_id: self.id };
        self.client.release_container(request).await.map(|_| ()).map_err(refused)
    }
}

/// A running process.
pub struct Process {
    /// Its standard input.
    pub input: ProcessInput,
    /// Its standard output, and its end.
    pub output: ProcessOutput,
}

/// The standard input of a process. It ends when it is dropped.
pub struct ProcessInput {
    to: mpsc::Sender<api::ExecMessage>,
    /// Bytes to send together with the next ones: the daemon passes each message on by itself, which takes it longer than the bytes.
    pending: Vec<u8>,
}

impl ProcessInput {
    /// Writes bytes, which reach the process at the latest with [`Self::flush`]. Waits while the process reads slowly.
    ///
    /// # Errors
    /// If the process or the daemon has gone.
    pub async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while self.pending.len() + bytes.len() >= PART {
            let (now, later) = bytes.split_at(PART - self.pending.len());
            self.pending.extend_from_slice(now);
            bytes = later;
            self.flush().await?;
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    /// Sends what is written.
    ///
    /// # Errors
    /// If the process or the daemon has gone.
    pub async fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.pending, Vec::with_capacity(PART));
        send(&self.to, Message::File(api::FdMessage { fd: 0, eof: false, data })).await
    }

    /// Ends the input.
    ///
    /// # Errors
    /// If the process or the daemon has gone.
    pub async fn end(&mut self) -> io::Result<()> {
        self.flush().await?;
        send(&self.to, Message::File(api::FdMessage { fd: 0, eof: true, data: Vec::new() })).await
    }
}

/// The standard output of a process.
pub struct ProcessOutput {
    from: Streaming<api::ExecMessage>,
    stderr: Vec<u8>,
    exit: Option<api::ExitMessage>,
}

impl ProcessOutput {
    /// Returns the next bytes of the standard output. Returns `None` after the last ones, if the process ended well.
    ///
    /// # Errors
    /// If the process failed, with its standard error, or the daemon has gone.
    pub async fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        while let Some(message) = self.from.message().await.map_err(refused)? {
            match message.input {
                Some(Message::File(data)) if data.fd == 1 && !data.data.is_empty() => return Ok(Some(data.data)),
                Some(Message::File(data)) if data.fd == 2 => {
                    let room = SHOWN.saturating_sub(self.stderr.len());
                    self.stderr.extend(data.data.into_iter().take(room));
                }
                Some(Message::Exit(exit)) => self.exit = Some(exit),
                Some(Message::Done(_)) => break,
                _ => {}
            }
        }
        match self.exit.take() {
            Some(exit) if exit.code == 0 && exit.error.is_none() => Ok(None),
            Some(exit) => {
                let why = exit.error.map(|error| error.message).unwrap_or_else(|| format!("exit code {}", exit.code));
                let said = String::from_utf8_lossy(&self.stderr);
                Err(io::Error::other(format!("{why}: {}", said.trim()).trim_end_matches([':', ' '])))
            }
            None => Err(io::Error::other("the daemon did not say how the process ended")),
        }
    }
}

async fn send(to: &mpsc::Sender<api::ExecMessage>, input: Message) -> io::Result<()> {
    let message = api::ExecMessage { process_id: "hakobi".to_owned(), input: Some(input) };
    to.send(message).await.map_err(|_| io::Error::other("the process in the container has ended"))
}

fn refused(status: tonic::Status) -> io::Error {
    io::Error::other(status.message().to_owned())
}
