//! Formats text for a terminal: cleans it, and formats widths, sizes, seconds and colours.

use std::borrow::Cow;

/// Removes escape sequences and control characters, so that the output of a build cannot move our cursor. Newlines stay. A tab
/// becomes spaces, because its width depends on the column.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => skip_csi(&mut chars),
                Some(']' | 'P' | 'X' | '^' | '_') => skip_string(&mut chars),
                // Other sequences, such as character sets: intermediate bytes, then one final byte.
                Some(' '..='/') => while chars.next().is_some_and(|c| matches!(c, ' '..='/')) {},
                _ => {}
            },
            '\u{9b}' => skip_csi(&mut chars),
            '\n' => out.push('\n'),
            '\t' => out.push_str("    "),
            c if c.is_control() || is_direction(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// Cleans a message. Its further lines are indented, so that a reader takes none of them for another message.
pub(super) fn message(text: &str) -> String {
    clean(text).trim_end().replace('\n', "\n    ")
}

/// The prefixes that CI systems (GitHub, Azure, TeamCity) read as commands at the start of a line, even after blanks.
const COMMANDS: [&str; 4] = ["::", "##[", "##vso[", "##teamcity["];

/// Puts a backslash before each line that a CI would read as a command. All output to a log or a terminal passes through this function.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    // A carriage return also begins a line.
    let is_command = |line: &str| COMMANDS.iter().any(|command| line.trim_start().starts_with(command));
    if !text.split(['\n', '\r']).any(is_command) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for line in text.split_inclusive(['\n', '\r']) {
        if is_command(line) {
            out.push('\\');
        }
        out.push_str(line);
    }
    Cow::Owned(out)
}

/// Escapes characters in JSON that a terminal may read as a command, or that change the writing direction. Such characters occur
/// only in strings, where the escape has the same meaning.
pub(super) fn escaped_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && (c.is_control() || is_direction(c)) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// Cleans a command's answer on standard output for a terminal and a log. JSON stays valid JSON.
#[must_use]
pub fn answer(text: &str) -> String {
    match text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        true => escaped_json(text),
        false => harmless(&clean(text)).into_owned(),
    }
}

/// Returns a step's name or a reason in one line.
#[must_use]
pub fn one_line(text: &str) -> String {
    title(text)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn skip_csi(chars: &mut Chars<'_>) {
    while chars.next().is_some_and(|c| !matches!(c, '@'..='~')) {}
}

fn skip_string(chars: &mut Chars<'_>) {
    while let Some(c) = chars.next() {
        if c == '\u{7}' || c == '\u{9c}' {
            return;
        }
        if c == '\u{1b}' {
            chars.next();
            return;
        }
    }
}

/// Returns whether a character changes the writing direction, which could disguise the text of a log.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns a step's name in one line. Of a heredoc only the first line is shown.
pub(super) fn title(name: &str) -> String {
    let cleaned = clean(name);
    let mut lines = cleaned.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or_default().trim_end().to_owned();
    if lines.next().is_some() { format!("{first} …") } else { first }
}

/// Returns the width of a cleaned text, in columns.
pub(super) fn width(text: &str) -> usize {
    console::measure_text_width(text)
}

/// Cuts a cleaned text to `columns`, and marks the cut with an ellipsis.
pub(super) fn truncate(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    if columns == 0 {
        return Cow::Borrowed("");
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let mut buffer = [0; 4];
        let this = width(c.encode_utf8(&mut buffer));
        if used + this > columns - 1 {
            break;
        }
        used += this;
        out.push(c);
    }
    out.push('…');
    Cow::Owned(out)
}

/// Formats bytes in decimal units with two decimals: `120B`, `12.34MB`.
pub(super) fn bytes(count: i64) -> String {
    scaled(count.max(0).unsigned_abs(), 2, "")
}

/// Formats bytes for sentences: `120 B`, `3.1 MB`.
pub(super) fn bytes_in_words(count: u64) -> String {
    scaled(count, 1, " ")
}

fn scaled(count: u64, decimals: usize, gap: &str) -> String {
    if count < 1000 {
        return format!("{count}{gap}B");
    }
    let mut value = count as f64;
    let mut unit = "";
    for next in ["kB", "MB", "GB", "TB"] {
        value /= 1000.0;
        unit = next;
        // A larger value, such as 999.996, would be rounded to 1000.00.
        if value < 999.995 {
            break;
        }
    }
    format!("{value:.decimals$}{gap}{unit}")
}

/// Formats seconds as a log line's time. It has more decimals for fewer seconds.
pub(super) fn log_seconds(seconds: f64) -> String {
    let decimals = match seconds {
        s if s < 10.0 => 3,
        s if s < 100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.decimals$}")
}

/// Whether to use colours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(pub bool);

impl Paint {
    /// Colours the text of a finished step.
    pub fn done(self, text: &str) -> String {
        self.wrap("36", text)
    }

    /// Colours the text of a failed step.
    pub fn bad(self, text: &str) -> String {
        self.wrap("31", text)
    }

    /// Colours a warning.
    pub fn warn(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// Dims less important text.
    pub fn faint(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// Makes a label bold, in this colour.
    pub fn bold(self, color: &str, text: &str) -> String {
        self.wrap(&format!("1;{color}"), text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_controls_go() {
        assert_eq!(clean("a\u{1b}[31;1mb\u{1b}[0m\u{8}c\u{1b}]0;title\u{7}d\u{1b}(Be\u{1b}7f"), "abcdef");
        assert_eq!(clean("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\"), "link");
        assert_eq!(clean("a\tb\u{202e}c\u{9b}2Jd"), "a    bcd");
        assert_eq!(clean("\u{1b}"), "");
        assert_eq!(clean("x\u{1b}["), "x");
    }

    #[test]
    fn names_are_one_line() {
        assert_eq!(title("[2/3] RUN <<EOF\napt-get update\nEOF"), "[2/3] RUN <<EOF …");
        assert_eq!(title("[2/3] RUN make\n"), "[2/3] RUN make");
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(width("運び"), 4);
        assert_eq!(truncate("運び屋さん", 5), "運び…");
        assert_eq!(truncate("運び屋さん", 4), "運…");
        assert_eq!(truncate("abc", 3), "abc");
        assert_eq!(truncate("abc", 0), "");
    }

    #[test]
    fn sizes_and_seconds() {
        assert_eq!(bytes(120), "120B");
        assert_eq!(bytes(12_340_000), "12.34MB");
        assert_eq!(bytes(999_999), "1.00MB");
        assert_eq!(bytes(-1), "0B");
        assert_eq!(bytes_in_words(3_100_000), "3.1 MB");
        assert_eq!(log_seconds(0.5), "0.500");
        assert_eq!(log_seconds(12.345), "12.35");
        assert_eq!(log_seconds(123.0), "123.0");
    }
}
