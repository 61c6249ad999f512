//! Computes one frame of the live display, as lines that fit the terminal. `screen` draws them.

use super::text::{Paint, bytes, title, truncate, width};
use super::trace::{Entry, Trace};
use crate::event::{Progress, Time};

/// The number of log lines shown for a running step.
const LOG_LINES: usize = 6;

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// The width in columns.
    pub width: usize,
    /// The height in rows.
    pub height: usize,
}

/// A step with the lines below it.
struct Block {
    done: bool,
    head: String,
    parts: Vec<(bool, String)>,
    log: Vec<String>,
}

impl Block {
    fn rows(&self) -> usize {
        1 + self.parts.len() + self.log.len()
    }
}

/// Returns the frame at `now`. `began` is the start of the run. The last frame (`whole`) has all steps, whatever the height.
pub(super) fn frame(trace: &Trace, size: Size, began: Time, now: Time, paint: Paint, whole: bool) -> Vec<String> {
    // The last column stays empty, because terminals differ in when they wrap after it.
    let columns = size.width.saturating_sub(1);
    let mut blocks: Vec<Block> = trace.started().map(|(_, entry)| block(trace, entry, now, paint, columns, whole)).collect();
    let mut hidden = 0;
    if !whole {
        // One row is for the header, and one below for the cursor.
        hidden = fit(&mut blocks, size.height.saturating_sub(2).max(1));
    }
    let mut lines = vec![header(trace, began, now, columns, whole)];
    for block in blocks {
        lines.push(block.head);
        lines.extend(block.parts.into_iter().map(|(_, line)| line));
        lines.extend(block.log);
    }
    if hidden > 0 {
        lines.push(paint.faint(&truncate(&format!(" => … and {hidden} more"), columns)));
    }
    lines
}

fn header(trace: &Trace, began: Time, now: Time, columns: usize, whole: bool) -> String {
    let (known, done) = trace.counts();
    let failed = trace.started().any(|(_, entry)| entry.is_failed());
    let ending = if whole && !failed && known == done { " FINISHED" } else { "" };
    truncate(&format!("[+] Building {:.1}s ({done}/{known}){ending}", now.seconds_since(began)), columns).into_owned()
}

fn block(trace: &Trace, entry: &Entry, now: Time, paint: Paint, columns: usize, whole: bool) -> Block {
    let label = match (&entry.error, entry.cached) {
        (Some(_), _) if entry.is_canceled() => "CANCELED ",
        (Some(_), _) => "ERROR ",
        (None, true) => "CACHED ",
        (None, false) => "",
    };
    let line = row(&format!(" => {label}{}", entry.title), "", trace.seconds(entry, now), columns);
    let head = match (&entry.error, entry.is_done()) {
        (Some(_), _) if entry.is_canceled() => paint.warn(&line),
        (Some(_), _) => paint.bad(&line),
        (None, true) => paint.done(&line),
        (None, false) => line,
    };
    let parts = entry.parts.iter().map(|part| {
        let line = row(&part_name(part, columns), &amount(part), trace.part_seconds(entry, part, now), columns);
        let done = part.completed.is_some();
        (done, if done { paint.done(&line) } else { line })
    });
    let log = if entry.is_done() || whole { Vec::new() } else { entry.log.tail(LOG_LINES) };
    let log = log.iter().map(|text| paint.faint(&truncate(&format!(" => => # {text}"), columns)));
    Block { done: entry.is_done(), head, parts: parts.collect(), log: log.collect() }
}

/// Returns a row: the name on the left, then the amount, and the seconds at the right edge. If it is too long, it loses the end
/// of the name, and on a very narrow terminal also the amount.
fn row(name: &str, amount: &str, seconds: f64, columns: usize) -> String {
    // A small negative time would otherwise show as `-0.0s`.
    let timer = format!("{:.1}s", if seconds < 0.05 { 0.0 } else { seconds });
    let mut amount = if amount.is_empty() { String::new() } else { format!(" {amount}") };
    let mut left = columns.saturating_sub(timer.len() + 1);
    if left < width(&amount) + 16 {
        amount.clear();
    }
    left = left.saturating_sub(width(&amount));
    let name = truncate(name, left);
    let gap = left - width(&name) + 1;
    truncate(&format!("{name}{amount}{}{timer}", " ".repeat(gap)), columns).into_owned()
}

fn part_name(part: &Progress, columns: usize) -> String {
    let id = title(&part.id);
    // On a narrow terminal, twelve digits of a digest are enough.
    match id.split_once("sha256:") {
        Some((before, hex)) if columns < 120 && hex.len() >= 64 && hex.is_char_boundary(12) && hex.is_char_boundary(64) => {
            format!(" => => {before}sha256:{}{}", &hex[..12], &hex[64..])
        }
        _ => format!(" => => {id}"),
    }
}

fn amount(part: &Progress) -> String {
    match (part.current, part.total) {
        (0, 0) => String::new(),
        (current, 0) => bytes(current),
        (current, total) => format!("{} / {}", bytes(current), bytes(total)),
    }
}

/// Removes rows until at most `limit` are left, the least important first. Returns the number of running steps that it removed.
fn fit(blocks: &mut Vec<Block>, limit: usize) -> usize {
    let mut rows: usize = blocks.iter().map(Block::rows).sum();
    let mut over = |freed: usize| {
        rows -= freed;
        rows > limit
    };
    if !over(0) {
        return 0;
    }
    // First from finished steps: their parts, then the steps themselves, the oldest first.
    for block in blocks.iter_mut().filter(|block| block.done) {
        if !over(std::mem::take(&mut block.parts).len()) {
            return 0;
        }
    }
    while let Some(oldest) = blocks.iter().position(|block| block.done) {
        blocks.remove(oldest);
        if !over(1) {
            return 0;
        }
    }
    // Then from running steps: finished parts, then log lines from the step with most of them, then the other parts.
    for block in blocks.iter_mut() {
        while let Some(done) = block.parts.iter().position(|(done, _)| *done) {
            block.parts.remove(done);
            if !over(1) {
                return 0;
            }
        }
    }
    while let Some(longest) = blocks.iter_mut().filter(|block| !block.log.is_empty()).max_by_key(|block| block.log.len()) {
        longest.log.remove(0);
        if !over(1) {
            return 0;
        }
    }
    for block in blocks.iter_mut() {
        while block.parts.pop().is_some() {
            if !over(1) {
                return 0;
            }
        }
    }
    // Only running steps are left. The last row shows the number of hidden ones.
    let shown = limit.saturating_sub(1);
    let hidden = blocks.len() - shown;
    blocks.truncate(shown);
    hidden
}

#[cfg(test)]
mod tests;
