//! The kernel's clock for the times of files.

use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::Timespec;
use rustix::time::{ClockId, clock_gettime};

use super::attributes::{changed, nanoseconds};

const SECOND: i64 = 1_000_000_000;

/// The longest wait for the clock. It ticks at least every 10 ms.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// Returns the time that a file would get if it changed now, in nanoseconds since 1970.
pub fn now() -> i64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::RealtimeCoarse);
    nanoseconds(tv_sec, tv_nsec)
}

/// Returns a time before any change that comes from now on. Changes just before may have a later time.
pub fn before(root: &File) -> rustix::io::Result<i64> {
    let now = now();
    let start = if has_whole_seconds(root)? { now.div_euclid(SECOND) * SECOND } else { now };
    Ok(start - 1)
}

/// Returns the time of the last change of a directory, after the clock has moved past it: no later change has this time.
pub fn after(root: &File) -> rustix::io::Result<i64> {
    let at = changed(&rustix::fs::fstat(root)?);
    if has_whole_seconds(root)? {
        // Changes in the rest of this second would have the same time. All files of the mount may count as changed, but none is missed.
        return Ok(at - 1);
    }
    let began = Instant::now();
    while now() <= at && began.elapsed() < LONGEST_WAIT {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(at)
}

/// Returns whether the file system has no fractions of seconds, as ext4 with small inodes.
fn has_whole_seconds(root: &File) -> rustix::io::Result<bool> {
    Ok(changed(&rustix::fs::fstat(root)?) % SECOND == 0)
}
