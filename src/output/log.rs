//! Splits the output of a command into lines with times.

/// The length, in bytes, at which an unended line is cut. A command that never ends a line thus cannot fill the memory.
const LONGEST: usize = 64 * 1024;

/// A line of a step's log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// The time in seconds since the step began.
    pub at: f64,
    /// The text, without control characters.
    pub text: String,
}

/// The log of a step.
#[derive(Debug, Default)]
pub(super) struct StepLog {
    lines: Vec<Line>,
    dropped: usize,
    open: Vec<u8>,
    open_at: f64,
}

impl StepLog {
    /// Adds output that the command wrote `at` seconds after the step began.
    pub fn push(&mut self, data: &[u8], at: f64) {
        let mut rest = data;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.extend(&rest[..end], at);
            self.close();
            rest = &rest[end + 1..];
        }
        self.extend(rest, at);
        if self.open.len() > LONGEST {
            self.close();
        }
    }

    fn extend(&mut self, data: &[u8], at: f64) {
        if self.open.is_empty() {
            self.open_at = at;
        }
        self.open.extend_from_slice(data);
        // On a terminal, a carriage return overwrites the line so far. The log drops that text too.
        let after = last_state(&self.open);
        if after > 0 {
            self.open.drain(..after);
            self.open_at = at;
        }
    }

    /// Ends the current line.
    fn close(&mut self) {
        let text = decode(&self.open);
        self.open.clear();
        self.lines.push(Line { at: self.open_at, text });
    }

    /// Makes a line of the unended text, unless it is empty.
    pub fn flush(&mut self) {
        if !decode(&self.open).is_empty() {
            self.close();
        }
    }

    /// Returns when the unended line began, in seconds since the step began. Returns `None` if there is none.
    pub fn open_since(&self) -> Option<f64> {
        (!self.open.is_empty()).then_some(self.open_at)
    }

    /// Returns the number of lines, including the forgotten ones.
    pub fn count(&self) -> usize {
        self.dropped + self.lines.len()
    }

    /// Returns the lines from `index` on, without the forgotten ones.
    pub fn from(&self, index: usize) -> &[Line] {
        &self.lines[index.saturating_sub(self.dropped).min(self.lines.len())..]
    }

    /// Returns the last non-empty lines, at most `count`, including the unended line.
    pub fn tail(&self, count: usize) -> Vec<String> {
        let open = decode(&self.open);
        let texts = self.lines.iter().map(|line| line.text.clone()).rev();
        let mut tail: Vec<String> =
            Some(open).into_iter().chain(texts).filter(|text| !text.trim().is_empty()).take(count).collect();
        tail.reverse();
        tail
    }

    /// Drops the lines, but not their number.
    pub fn forget(&mut self) {
        self.dropped += self.lines.len();
        self.lines.clear();
        self.lines.shrink_to_fit();
    }
}

/// Returns the index of the text that the last carriage return left on the line. A carriage return at the very end overwrote nothing yet.
fn last_state(line: &[u8]) -> usize {
    let end = line.len() - line.iter().rev().take_while(|byte| **byte == b'\r').count();
    line[..end].iter().rposition(|byte| *byte == b'\r').map_or(0, |at| at + 1)
}

fn decode(line: &[u8]) -> String {
    super::text::clean(&String::from_utf8_lossy(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(log: &StepLog) -> Vec<(f64, &str)> {
        log.from(0).iter().map(|line| (line.at, line.text.as_str())).collect()
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        let mut log = StepLog::default();
        log.push(b"one\ntw", 0.1);
        log.push(b"o\n\nthree", 0.2);
        assert_eq!(lines(&log), [(0.1, "one"), (0.1, "two"), (0.2, "")]);
        assert_eq!(log.tail(2), ["two", "three"]);
        log.flush();
        log.flush();
        assert_eq!(log.count(), 4);
    }

    #[test]
    fn characters_cut_between_messages_survive() {
        let mut log = StepLog::default();
        log.push(&"é".as_bytes()[..1], 0.0);
        log.push(&"é\n".as_bytes()[1..], 0.0);
        assert_eq!(lines(&log), [(0.0, "é")]);
    }

    #[test]
    fn a_carriage_return_overwrites() {
        let mut log = StepLog::default();
        log.push(b"10%\r20%\r", 1.0);
        assert_eq!(log.tail(1), ["20%"]);
        log.push(b"100%\r\n", 2.0);
        log.push(b"dos\r\n", 3.0);
        assert_eq!(lines(&log), [(2.0, "100%"), (3.0, "dos")]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut log = StepLog::default();
        for _ in 0..100 {
            log.push(&[b'.'; 1024], 0.0);
        }
        assert_eq!(log.count(), 1);
        log.forget();
        assert_eq!(log.count(), 1);
        assert!(log.from(0).is_empty());
        log.push(b"\nlater\n", 0.0);
        assert_eq!(log.from(2).len(), 1);
    }
}
