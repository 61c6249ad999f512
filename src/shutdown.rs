//! Cleanup before the process ends: hakobi removes its own names and aborts uploads.
//!
//! An interrupted run drops its futures. The cleanup continues as a task of this room, for which `main` waits.

use std::sync::LazyLock;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

static TASKS: LazyLock<TaskTracker> = LazyLock::new(TaskTracker::new);
static STOP: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);

/// A pending cleanup. The process does not end before this is dropped.
#[derive(Debug)]
pub struct Open {
    _token: TaskTrackerToken,
}

/// Registers a cleanup that is necessary if the run ends now.
#[must_use]
pub fn open() -> Open {
    Open { _token: TASKS.token() }
}

/// Runs a task to its end, even if the run ends meanwhile. Returns `None` and does nothing if there is no runtime.
pub fn spawn<F>(task: F) -> Option<tokio::task::JoinHandle<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    Some(TASKS.spawn_on(task, &runtime))
}

/// Interrupts the run: all code that waits for [`begun`] stops.
pub fn begin() {
    STOP.cancel();
}

/// Waits until the run is interrupted.
pub async fn begun() {
    STOP.cancelled().await;
}

/// Waits until all cleanups are complete, for this long at most.
pub async fn finished(within: Duration) {
    TASKS.close();
    let _ = tokio::time::timeout(within, TASKS.wait()).await;
}
