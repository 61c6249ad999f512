//! A process of the soak: how it ends, and how much memory and how many files it uses.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Alone,
    /// SIGKILL after this time.
    Kill(Duration),
    /// SIGTERM after this time.
    Terminate(Duration),
}

/// What was seen of a process.
#[derive(Debug)]
pub struct Seen {
    pub code: Option<i32>,
    /// The time from the signal to the end. `None` if it ended without one.
    pub stopped: Option<Duration>,
    pub killed: bool,
    pub log: String,
    /// In KiB.
    memory: u64,
    files: usize,
    time: Duration,
}

/// Runs a process, and ends it that way.
pub fn watched(mut command: Command, end: End) -> Seen {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let log = std::thread::spawn(move || {
        let mut log = Vec::new();
        let _ = stderr.read_to_end(&mut log);
        String::from_utf8_lossy(&log).into_owned()
    });
    let (began, mut signalled, mut memory, mut files) = (Instant::now(), None, 0, 0);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        memory = memory.max(high_water(&child));
        files = files.max(open_files(&child));
        let (due, signal) = match end {
            End::Alone => (Duration::MAX, Signal::TERM),
            End::Kill(due) => (due, Signal::KILL),
            End::Terminate(due) => (due, Signal::TERM),
        };
        if signalled.is_none() && began.elapsed() >= due {
            signalled = Some(Instant::now());
            let _ = kill_process(Pid::from_child(&child), signal);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    Seen {
        code: status.code(),
        stopped: signalled.map(|at| at.elapsed()),
        killed: signalled.is_some() && matches!(end, End::Kill(_)),
        log: log.join().unwrap(),
        memory,
        files,
        time: began.elapsed(),
    }
}

/// Returns the most memory that a process had so far, in KiB.
fn high_water(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn open_files(child: &Child) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", child.id())).map_or(0, Iterator::count)
}

/// Prints what was seen, a line for each quarter of the builds, so that growth shows.
pub fn summary(seen: &[Seen], prunes: usize, time: Duration) {
    let (killed, stopped) =
        (seen.iter().filter(|seen| seen.killed).count(), seen.iter().filter(|seen| seen.stopped.is_some()).count());
    let warned = seen.iter().filter(|seen| seen.log.contains("warning: ")).count();
    eprintln!(
        "{} builds in {time:.0?}: {killed} killed, {} terminated, {warned} with a warning; {prunes} prunes",
        seen.len(),
        stopped - killed
    );
    for quarter in seen.chunks(seen.len().div_ceil(4).max(1)) {
        let memory = quarter.iter().map(|seen| seen.memory).max().unwrap_or(0) >> 10;
        let files = quarter.iter().map(|seen| seen.files).max().unwrap_or(0);
        let longest = quarter.iter().map(|seen| seen.time).max().unwrap_or_default();
        eprintln!("  at most {memory} MiB, {files} open files, {longest:.1?}");
    }
    let slowest = seen.iter().filter_map(|seen| seen.stopped).max().unwrap_or_default();
    eprintln!("  at most {slowest:.1?} from a signal to the end");
}
