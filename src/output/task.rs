//! The thread that shows a run.
//!
//! A thread and no task: a terminal that takes nothing (Ctrl-S, a slow log collector) must not hold up the work.

use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc::UnboundedReceiver, oneshot};
use tokio::time::Instant;

use super::display::{Display, Shown};
use super::terminal::Terminal;
use crate::event::Event;
use crate::settings::ProgressMode;

/// Between two drawings.
const INTERVAL: Duration = Duration::from_millis(100);

/// A running display. It must be ended by [`Handle::finish`] before anything else is written to the terminal; dropped
/// without, it ends as well, and the drop waits for that.
#[derive(Debug)]
pub struct Handle {
    stop: Option<oneshot::Sender<()>>,
    result: Option<oneshot::Receiver<Shown>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Shows the events on standard error. `Auto` is the live display on a terminal, lines elsewhere.
#[must_use]
pub fn spawn(receiver: UnboundedReceiver<Event>, mode: ProgressMode, color: bool) -> Handle {
    spawn_on(Terminal::stderr(), receiver, mode, color)
}

/// Shows the events on this terminal.
#[must_use]
pub fn spawn_on(terminal: Terminal, receiver: UnboundedReceiver<Event>, mode: ProgressMode, color: bool) -> Handle {
    let (stop, stopped) = oneshot::channel();
    let (sender, result) = oneshot::channel();
    let display = Display::new(terminal, mode, color);
    // Without a thread or its timer nothing is shown; the work goes on.
    let thread = thread::Builder::new().name("display".into()).spawn(move || {
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() {
            let _ = sender.send(runtime.block_on(show(display, receiver, stopped)));
        }
    });
    Handle { stop: Some(stop), result: Some(result), thread: thread.ok() }
}

async fn show(mut display: Display, mut receiver: UnboundedReceiver<Event>, mut stopped: oneshot::Receiver<()>) -> Shown {
    let mut ticks = tokio::time::interval_at(Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Ticks first: a flood of events must not keep the display from being drawn.
            biased;
            _ = ticks.tick() => display.refresh(),
            _ = &mut stopped => break,
            event = receiver.recv() => match event {
                Some(event) => display.event(&event),
                None => break,
            },
        }
    }
    // What was sent before the end is shown, whoever still holds a sender.
    receiver.close();
    while let Some(event) = receiver.recv().await {
        display.event(&event);
    }
    display.end()
}

impl Handle {
    /// Shows what was sent so far, and the last picture. What is sent later is lost.
    pub async fn finish(mut self) -> Shown {
        self.stop.take();
        let Some(result) = self.result.take() else { return Shown::default() };
        result.await.unwrap_or_default()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A display that panicked has already said so.
            let _ = thread.join();
        }
    }
}
