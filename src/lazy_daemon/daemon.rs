//! A daemon of hakobi's own, as a build sees it.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};

use super::protocol::{DaemonStart, KeeperReply, KeeperRequest, Paths};
use crate::disk::DiskLoss;
use crate::disk::lines::line;
use crate::disk::protocol::KeptDisk;
use crate::settings::DaemonEndpoint;
use crate::shutdown;
use crate::transfer::Scratch;

/// How long the keeper may take to start the daemon, or to end it.
const LATEST: Duration = Duration::from_secs(60);

/// How long the keeper may take to let go of everything, before it is killed. An interrupted run waits little longer.
const END: Duration = Duration::from_secs(3);

/// A daemon. Dropping it kills it, and nothing is kept of it.
#[derive(Debug)]
pub struct LazyDaemon {
    endpoint: DaemonEndpoint,
    lost: watch::Receiver<Option<DiskLoss>>,
    /// `None` after it was dropped.
    keeper: Option<Keeper>,
}

#[derive(Debug)]
struct Keeper {
    child: Child,
    input: ChildStdin,
    replies: mpsc::UnboundedReceiver<KeeperReply>,
    work: Scratch,
}

impl LazyDaemon {
    /// Starts a daemon. It does not answer yet.
    ///
    /// # Errors
    /// If the machine does not allow it, or its disk cannot be read.
    pub async fn start(work: Scratch, start: DaemonStart) -> io::Result<Self> {
        let program = format!("/proc/{}/exe", std::process::id());
        // Its mounts are nobody else's, and end with it.
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--", &program, "daemon-keeper"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C is for the build, which then ends the daemon.
            .process_group(0)
            .spawn()?;
        let gone = || io::Error::other("the keeper of the daemon has no input or output");
        let (input, output) = (child.stdin.take().ok_or_else(gone)?, child.stdout.take().ok_or_else(gone)?);
        let (losing, lost) = watch::channel(None);
        let (sender, replies) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(KeeperReply::Lost(why)) => lose(&losing, why),
                    // The keeper has ended all, perhaps because of a lost disk.
                    Ok(KeeperReply::Failed(why)) => {
                        lose(&losing, why.clone());
                        drop(sender.send(KeeperReply::Failed(why)));
                    }
                    Ok(reply) => drop(sender.send(reply)),
                    Err(_) => break,
                }
            }
        });
        let endpoint = DaemonEndpoint {
            url: format!("unix://{}", Paths(work.path()).socket().display()),
            tls: None,
            origin: "--daemon lazy".to_owned(),
        };
        let mut daemon = Self { endpoint, lost, keeper: Some(Keeper { child, input, replies, work }) };
        daemon.keeper()?.ask(&KeeperRequest::Start(Box::new(start))).await?;
        match daemon.reply(LATEST).await? {
            KeeperReply::Started => Ok(daemon),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns its address.
    #[must_use]
    pub fn endpoint(&self) -> &DaemonEndpoint {
        &self.endpoint
    }

    /// Returns whether its socket is there. It may answer then.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.endpoint.url.strip_prefix("unix://").is_some_and(|path| Path::new(path).exists())
    }

    /// Waits until it is lost: it ended by itself, or its disk cannot be read. Returns why.
    pub async fn lost(&self) -> DiskLoss {
        let mut lost = self.lost.clone();
        let found = match lost.wait_for(Option::is_some).await {
            Ok(why) => why.clone(),
            // The keeper has gone.
            Err(_) => None,
        };
        found.unwrap_or_else(|| DiskLoss::new("its keeper has ended"))
    }

    /// Stops the daemon and saves its disk.
    ///
    /// # Errors
    /// If it does not end cleanly, or the store does not accept the disk. Nothing of it is kept then.
    pub async fn save(mut self) -> io::Result<KeptDisk> {
        self.keeper()?.ask(&KeeperRequest::Stop).await?;
        match self.reply(LATEST).await? {
            KeeperReply::Stopped => {}
            other => return Err(unexpected(&other)),
        }
        self.keeper()?.ask(&KeeperRequest::Save).await?;
        match self.reply(Duration::MAX).await? {
            KeeperReply::Saved(kept) => Ok(kept),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends the daemon, and keeps nothing of it. Returns when it is gone.
    pub async fn abandon(mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.end().await;
        }
    }

    fn keeper(&mut self) -> io::Result<&mut Keeper> {
        self.keeper.as_mut().ok_or_else(|| io::Error::other("it has ended"))
    }

    async fn reply(&mut self, within: Duration) -> io::Result<KeeperReply> {
        let lost = self.lost.clone();
        let reply = self.keeper()?.replies.recv();
        let late = || io::Error::other(format!("no answer from the keeper of the daemon for {} s", within.as_secs()));
        match tokio::time::timeout(within, reply).await.map_err(|_| late())? {
            Some(KeeperReply::Failed(why)) => Err(lost.borrow().clone().unwrap_or(why).into()),
            Some(reply) => Ok(reply),
            None => {
                let why = lost.borrow().clone();
                Err(why.unwrap_or_else(|| DiskLoss::new("the keeper of the daemon has ended")).into())
            }
        }
    }
}

impl Keeper {
    async fn ask(&mut self, request: &KeeperRequest) -> io::Result<()> {
        self.input.write_all(&line(request)).await
    }

    /// Lets the keeper end all that it has started.
    async fn end(self) {
        let Self { mut child, input, work, replies: _ } = self;
        drop(input);
        if tokio::time::timeout(END, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
        drop(work);
    }
}

impl Drop for LazyDaemon {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            // The run waits for this at its end.
            drop(shutdown::spawn(keeper.end()));
        }
    }
}

/// Notes why the daemon is lost. The first reason is the cause of all others.
fn lose(losing: &watch::Sender<Option<DiskLoss>>, why: DiskLoss) {
    losing.send_if_modified(|first| {
        let is_first = first.is_none();
        first.get_or_insert(why);
        is_first
    });
}

fn unexpected(reply: &KeeperReply) -> io::Error {
    io::Error::other(format!("unexpected answer of the daemon's keeper: {reply:?}"))
}
