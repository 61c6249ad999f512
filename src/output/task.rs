//! The thread that runs the display.
//!
//! It is a thread and not a task, because a blocked terminal (Ctrl-S, a slow log collector) must not block the build.

use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc::UnboundedReceiver, oneshot};
use tokio::time::Instant;

use super::display::{Display, Shown};
use super::terminal::Terminal;
use crate::event::Event;
use crate::settings::ProgressMode;

/// The time between two frames.
const INTERVAL: Duration = Duration::from_millis(100);

/// A running display. The caller ends it with [`Handle::finish`] before it writes to the terminal itself. If the handle is
/// dropped instead, the display ends as well, and the drop waits for the end.
#[derive(Debug)]
pub struct Handle {
    stop: Option<oneshot::Sender<()>>,
    result: Option<oneshot::Receiver<Shown>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Shows the events on standard error. `Auto` means the live display on a terminal, and lines elsewhere.
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
    // Without the thread or its timer there is no display, but the build continues.
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
            // The tick comes first, so that many events cannot delay the drawing.
            biased;
            _ = ticks.tick() => display.refresh(),
            _ = &mut stopped => break,
            event = receiver.recv() => match event {
                Some(event) => display.event(&event),
                None => break,
            },
        }
    }
    // Events sent before the end are shown, even if a sender still exists.
    receiver.close();
    while let Some(event) = receiver.recv().await {
        display.event(&event);
    }
    display.end()
}

impl Handle {
    /// Shows all events sent so far and the last frame, and ends the display. Later events are lost.
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
            // A panic in the display is already reported.
            let _ = thread.join();
        }
    }
}
