//! Small conversions to what a terminal may show: cleaned text, widths, sizes, seconds, colours.

use std::borrow::Cow;

/// Takes out escape sequences and control characters, so that what a build prints cannot move our cursor. Newlines
/// stay; a tab becomes spaces, because its width depends on the column.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => skip_csi(&mut chars),
                Some(']' | 'P' | 'X' | '^' | '_') => skip_string(&mut chars),
                // Character sets and the like: intermediate bytes, then one final byte.
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

/// A text in one line of its own: further lines are indented, so that none of them can be taken for another message.
pub(super) fn message(text: &str) -> String {
    clean(text).trim_end().replace('\n', "\n    ")
}

/// What CI systems take for commands to themselves at the start of a line, whatever blanks are before it (GitHub, Azure, TeamCity).
const COMMANDS: [&str; 4] = ["::", "##[", "##vso[", "##teamcity["];

/// All that is written to a log or a terminal passes here: a line that a CI would take for a command gets a backslash before it.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    // A carriage return begins a line as well.
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

/// JSON without characters that a terminal may take for a command, or that turn the writing round: written as escapes they mean the
/// same. They stand in strings only.
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

/// A command's answer for standard output, made fit for a terminal and a log. JSON stays JSON.
#[must_use]
pub fn answer(text: &str) -> String {
    match text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        true => escaped_json(text),
        false => harmless(&clean(text)).into_owned(),
    }
}

/// A step's name, a reason or the like in one line.
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

/// Characters that turn the writing direction round: a log could disguise itself with them.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A step's name in one line: a heredoc's first line stands for all.
pub(super) fn title(name: &str) -> String {
    let cleaned = clean(name);
    let mut lines = cleaned.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or_default().trim_end().to_owned();
    if lines.next().is_some() { format!("{first} …") } else { first }
}

/// Columns that a cleaned text takes.
pub(super) fn width(text: &str) -> usize {
    console::measure_text_width(text)
}

/// Cuts a cleaned text to `columns`, with an ellipsis where something is lost.
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

/// Bytes in decimal units, two decimals: `120B`, `12.34MB`.
pub(super) fn bytes(count: i64) -> String {
    scaled(count.max(0).unsigned_abs(), 2, "")
}

/// Bytes as in sentences: `120 B`, `3.1 MB`.
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
        // 999.996 would round up to 1000.00.
        if value < 999.995 {
            break;
        }
    }
    format!("{value:.decimals$}{gap}{unit}")
}

/// Seconds as a log line's time: the more digits, the fewer seconds.
pub(super) fn log_seconds(seconds: f64) -> String {
    let decimals = match seconds {
        s if s < 10.0 => 3,
        s if s < 100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.decimals$}")
}

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(pub bool);

impl Paint {
    /// Ended.
    pub fn done(self, text: &str) -> String {
        self.wrap("36", text)
    }

    /// Failed.
    pub fn bad(self, text: &str) -> String {
        self.wrap("31", text)
    }

    /// Worth a look.
    pub fn warn(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// Beside the point.
    pub fn faint(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// A label.
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
