//! The operations that the daemon runs for hakobi. An operation does not end when hakobi stops waiting for it: until the daemon has
//! noticed, it may still store an image and name it.

use std::time::Duration;

use tokio::sync::watch;

/// The number of running operations of one daemon.
#[derive(Debug, Clone, Default)]
pub(super) struct Operations(watch::Sender<usize>);

impl Operations {
    /// Registers an operation. It runs until this is dropped.
    pub(super) fn begin(&self) -> Operation {
        self.0.send_modify(|running| *running += 1);
        Operation(self.0.clone())
    }

    /// Waits until the daemon has ended all operations, for this long at most.
    pub(super) async fn ended(&self, within: Duration) {
        let mut running = self.0.subscribe();
        // `self` keeps the channel open.
        let _ = tokio::time::timeout(within, running.wait_for(|running| *running == 0)).await;
    }
}

/// A running operation.
#[derive(Debug)]
pub(super) struct Operation(watch::Sender<usize>);

impl Drop for Operation {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}
