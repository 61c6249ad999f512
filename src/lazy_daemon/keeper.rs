//! The hidden command `hakobi daemon-keeper`: starts a daemon on a disk of the store, and ends it.
//!
//! It runs in mount namespaces of its own, and what it starts ends with it. So whatever kills a build or its keeper, no process and no
//! mount is left; of the network, a bridge and three rules may be, which the next keeper removes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, mount};

use super::bridge::Bridge;
use super::configuration;
use super::daemon_process::{DaemonProcess, last_words, shown};
use super::loop_device::MountedDisk;
use super::protocol::{DaemonStart, KeeperReply, KeeperRequest, Paths};
use crate::disk::DiskLoss;
use crate::disk::lines::{Replies, each, line};
use crate::disk::protocol::{DiskReply, DiskRequest, ServedDisk};

/// The pause between two looks at a daemon that ends.
const PAUSE: Duration = Duration::from_millis(5);

/// How often the keeper looks whether the daemon still runs.
const LOOK: Duration = Duration::from_millis(200);

/// How long the daemon's clean end may take.
const CLEAN_END: Duration = Duration::from_secs(30);

/// The directory where a daemon looks for containerd's socket. If the machine's own containerd is there, the daemon would use that one,
/// whose data is elsewhere.
const CONTAINERD: &str = "/run/containerd";

/// What a keeper hears besides the end of its build and a lost disk, which cannot wait for it.
enum Heard {
    Build(KeeperRequest),
    Disk(DiskReply),
    DiskGone,
}

/// What has to end when the build ends or the disk is lost, whatever the keeper waits for at that moment.
#[derive(Default)]
struct Running {
    daemon: Option<DaemonProcess>,
    bridge: Option<Bridge>,
    /// What lets the process that serves the disk hear.
    disk: Option<ChildStdin>,
}

type Shared = Arc<Mutex<Running>>;

fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a daemon until the input ends. Returns the exit code.
#[must_use]
pub fn run(input: File, output: File) -> u8 {
    let (sender, heard) = channel();
    let running = Shared::default();
    let replies = Replies::new(output);
    {
        let (sender, running) = (sender.clone(), Arc::clone(&running));
        thread::spawn(move || {
            each(input, |request| sender.send(Heard::Build(request)).is_ok());
            // The build has ended. Whatever this process waits for ends with it.
            *lock(&running) = Running::default();
            std::process::exit(0);
        });
    }
    let Ok(Heard::Build(KeeperRequest::Start(start))) = heard.recv() else { return 1 };
    let ended = keep(&start, &running, &replies, sender, &heard);
    *lock(&running) = Running::default();
    match ended {
        Ok(()) => 0,
        Err(error) => {
            replies.send(&KeeperReply::Failed(DiskLoss::of(error)));
            1
        }
    }
}

fn keep(
    start: &DaemonStart,
    running: &Shared,
    replies: &Replies,
    sender: Sender<Heard>,
    heard: &Receiver<Heard>,
) -> io::Result<()> {
    let mut mounted = Some(start_daemon(start, running, replies, sender, heard)?);
    replies.send(&KeeperReply::Started);
    loop {
        match heard.recv_timeout(LOOK) {
            Ok(Heard::Build(KeeperRequest::Stop)) => {
                stop(running)?;
                mounted.take().map_or(Ok(()), MountedDisk::end)?;
                replies.send(&KeeperReply::Stopped);
            }
            Ok(Heard::Build(KeeperRequest::Save)) => ask_disk(running, &DiskRequest::Save)?,
            Ok(Heard::Disk(DiskReply::Saved(disk))) => replies.send(&KeeperReply::Saved(disk)),
            Ok(Heard::Disk(DiskReply::Failed(why))) => return Err(why.into()),
            Ok(Heard::DiskGone) => return Err(io::Error::other("the process that serves the disk has ended")),
            Ok(Heard::Build(KeeperRequest::Start(_)) | Heard::Disk(DiskReply::Served | DiskReply::Lost(_))) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                let ended = lock(running).daemon.as_mut().and_then(DaemonProcess::ended);
                if let Some(status) = ended {
                    let words = last_words(Paths(&start.work));
                    let why = format!("dockerd ended with {}: {words}", shown(status));
                    return Err(DiskLoss::new(why).of_doubtful_disk().into());
                }
            }
        }
    }
}

/// Starts the daemon on its mounted disk.
fn start_daemon(
    start: &DaemonStart,
    running: &Shared,
    replies: &Replies,
    sender: Sender<Heard>,
    heard: &Receiver<Heard>,
) -> io::Result<MountedDisk> {
    let paths = Paths(&start.work);
    for directory in [paths.served(), paths.mounted()] {
        fs::create_dir(directory)?;
    }
    start_disk(running, replies.clone(), sender)?;
    ask_disk(
        running,
        &DiskRequest::Serve(Box::new(ServedDisk {
            store: start.store.clone(),
            saved: start.saved.clone(),
            size: start.size,
            mends: start.mends,
            ahead: start.ahead.clone(),
            local: paths.local(),
            directory: paths.served(),
            name: paths.disk_name(),
        })),
    )?;
    // The network needs no disk.
    let mut name = "none".to_owned();
    if start.has_network {
        let bridge = Bridge::new()?;
        bridge.name().clone_into(&mut name);
        lock(running).bridge = Some(bridge);
    }
    match heard.recv().map_err(io::Error::other)? {
        Heard::Disk(DiskReply::Served) => {}
        Heard::Disk(DiskReply::Failed(why)) => return Err(why.into()),
        _ => return Err(io::Error::other("the process that serves the disk has ended")),
    }
    // From here on, this thread and what it starts have mounts of their own. When processes are killed, the last one unmounts the disk,
    // and that must not be the one that serves it.
    unshare(CloneFlags::CLONE_NEWNS)?;
    fs::create_dir_all(configuration::EXEC_ROOT)?;
    for directory in [configuration::EXEC_ROOT, CONTAINERD] {
        if Path::new(directory).is_dir() {
            mount("tmpfs", directory, "tmpfs", MountFlags::empty(), None)?;
        }
    }
    let mounted = MountedDisk::new(&paths.served().join(paths.disk_name()), &paths.mounted(), start.saved.is_none());
    let mounted = mounted.map_err(|error| match start.saved {
        Some(_) => DiskLoss::of(error).of_doubtful_disk().into(),
        None => error,
    })?;
    let whole = configuration::whole(&start.configuration, start.major, &start.work, &name);
    fs::write(paths.configuration(), whole.to_string())?;
    // It ends with this thread, which is the process's first one.
    lock(running).daemon = Some(DaemonProcess::start(paths)?);
    Ok(mounted)
}

/// Stops the daemon. Others may kill it meanwhile.
fn stop(running: &Shared) -> io::Result<()> {
    lock(running).daemon.as_mut().ok_or_else(|| io::Error::other("the daemon has ended already"))?.terminate()?;
    let deadline = Instant::now() + CLEAN_END;
    loop {
        let status = match &mut lock(running).daemon {
            Some(daemon) => daemon.ended(),
            None => return Err(io::Error::other("the daemon was killed")),
        };
        match status {
            Some(status) if status.success() => break,
            Some(status) => return Err(io::Error::other(format!("the daemon ended with {}", shown(status)))),
            None if Instant::now() > deadline => {
                return Err(io::Error::other(format!("the daemon did not end within {} s", CLEAN_END.as_secs())));
            }
            None => thread::sleep(PAUSE),
        }
    }
    lock(running).daemon = None;
    Ok(())
}

/// Starts the process that serves the disk. The end of its input ends it, and a keeper that is killed closes that too.
fn start_disk(running: &Shared, replies: Replies, sender: Sender<Heard>) -> io::Result<()> {
    let mut child = Command::new("/proc/self/exe").arg("disk-process").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let Some(output) = child.stdout.take() else { return Err(io::Error::other("it has no output")) };
    lock(running).disk = child.stdin.take();
    let running = Arc::clone(running);
    thread::spawn(move || {
        each(output, |reply| match reply {
            // Whoever reads the disk waits until nobody can go on with an error.
            DiskReply::Lost(why) => {
                let mut all = lock(&running);
                all.daemon = None;
                replies.send(&KeeperReply::Lost(why));
                drop(all);
                ask_disk(&running, &DiskRequest::Abandoned).is_ok()
            }
            reply => sender.send(Heard::Disk(reply)).is_ok(),
        });
        let _ = sender.send(Heard::DiskGone);
        let _ = child.wait();
    });
    Ok(())
}

fn ask_disk(running: &Shared, request: &DiskRequest) -> io::Result<()> {
    lock(running).disk.as_mut().map_or(Ok(()), |input| input.write_all(&line(request)))
}
