//! The process of the daemon, with a process namespace of its own: when it ends, all that it has started ends.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::protocol::Paths;

/// How long the kernel may take to end a killed process.
const KILLED: Duration = Duration::from_secs(5);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// How many bytes of the log an error has at most.
const LAST_WORDS: usize = 300;

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct DaemonProcess {
    /// `unshare`, which waits for the daemon and has its exit code.
    outer: Child,
    /// The daemon, as seen from here.
    daemon: Option<Pid>,
}

impl DaemonProcess {
    /// Starts the daemon. It ends with the thread that calls this.
    ///
    /// # Errors
    /// If a program is missing.
    pub fn start(paths: Paths<'_>) -> io::Result<Self> {
        let log = File::create(paths.log())?;
        // Each of them becomes the next but for `unshare`, whose child is the first process of a new namespace. A killed keeper takes
        // `unshare` along, and that the daemon.
        let outer = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"])
            .arg("dockerd")
            .arg("--config-file")
            .arg(paths.configuration())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("failed to run setpriv: {error}")))?;
        Ok(Self { outer, daemon: None })
    }

    /// Returns how the daemon ended, or `None` if it still runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.outer.try_wait().ok().flatten()
    }

    /// Asks the daemon to end.
    ///
    /// # Errors
    /// If it has ended already.
    pub fn terminate(&mut self) -> io::Result<()> {
        let Some(daemon) = self.find() else { return Err(io::Error::other("the daemon has ended by itself")) };
        Ok(kill_process(daemon, Signal::TERM)?)
    }

    /// Kills the daemon and all that it started. Returns when none of them runs any more, or can do anything but wait.
    pub fn kill(&mut self) {
        if let Some(daemon) = self.find() {
            let _ = kill_process(daemon, Signal::KILL);
        }
        let _ = self.wait(KILLED);
        let _ = self.outer.kill();
    }

    fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            match self.outer.try_wait() {
                Ok(None) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }

    fn find(&mut self) -> Option<Pid> {
        if self.ended().is_some() {
            return None;
        }
        if self.daemon.is_none() {
            self.daemon = child_of(Path::new("/proc"), self.outer.id());
        }
        self.daemon
    }
}

impl Drop for DaemonProcess {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
        }
    }
}

/// Returns what the daemon said last, for an error.
#[must_use]
pub fn last_words(paths: Paths<'_>) -> String {
    let log = fs::read(paths.log()).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let line = log.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no message");
    let cut = line.char_indices().map(|(at, _)| at).find(|at| *at >= LAST_WORDS).unwrap_or(line.len());
    line.get(..cut).unwrap_or(line).to_owned()
}

/// Returns how a process ended, in words.
#[must_use]
pub fn shown(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}

/// Returns the first process that this one has started.
fn child_of(proc: &Path, parent: u32) -> Option<Pid> {
    fs::read_dir(proc).ok()?.filter_map(Result::ok).find_map(|entry| {
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name before it may have blanks and parentheses.
        let (_, fields) = stat.rsplit_once(") ")?;
        let is_child = fields.split(' ').nth(1)?.parse() == Ok(parent);
        if is_child { Pid::from_raw(number) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_found_by_its_parent() {
        let proc = tempfile::tempdir().unwrap();
        for (number, stat) in [("7", "7 (a b) S 1 7"), ("12", "12 (x) y (z) S 34 12"), ("self", "34 (me) S 1 1")] {
            fs::create_dir(proc.path().join(number)).unwrap();
            fs::write(proc.path().join(number).join("stat"), stat).unwrap();
        }
        assert_eq!(child_of(proc.path(), 34), Pid::from_raw(12));
        assert_eq!(child_of(proc.path(), 35), None);
    }

    #[test]
    fn the_last_words_are_short() {
        let work = tempfile::tempdir().unwrap();
        let paths = Paths(work.path());
        assert_eq!(last_words(paths), "no message");
        fs::write(paths.log(), format!("first\n  {}\n\n", "ä".repeat(400))).unwrap();
        assert_eq!(last_words(paths), "ä".repeat(150));
    }
}
