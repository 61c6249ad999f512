//! Finds a Dockerfile's variables for explanations: which instruction sets a variable, and which value replaced it.

use std::collections::{BTreeMap, BTreeSet};

/// The instruction that sets each variable of a Dockerfile.
#[derive(Debug, Default)]
pub(super) struct Setters {
    env: BTreeSet<String>,
    arg: BTreeSet<String>,
}

impl Setters {
    /// Parses a Dockerfile's lines.
    pub(super) fn parse(text: &str) -> Self {
        let mut out = Self::default();
        let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
        for line in joined.lines() {
            let mut words = line.split_whitespace();
            let into = match words.next().map(str::to_ascii_uppercase).as_deref() {
                Some("ENV") => &mut out.env,
                Some("ARG") => {
                    out.arg.extend(words.map(|word| word.split('=').next().unwrap_or(word).to_owned()));
                    continue;
                }
                _ => continue,
            };
            let words: Vec<&str> = words.collect();
            // `ENV name value` is the old syntax.
            let names = words.iter().filter_map(|word| word.split_once('=')).map(|(name, _)| name);
            match words.first().filter(|first| !first.contains('=')) {
                Some(first) => drop(into.insert((*first).to_owned())),
                None => into.extend(names.map(str::to_owned)),
            }
        }
        out
    }

    /// Returns the variable with the instruction that sets it, if the Dockerfile has one: `ARG VERSION`. ENV takes precedence over
    /// ARG, like in a build.
    pub(super) fn named(&self, name: &str) -> String {
        match (self.env.contains(name), self.arg.contains(name)) {
            (true, _) => format!("ENV {name}"),
            (false, true) => format!("ARG {name}"),
            (false, false) => name.to_owned(),
        }
    }
}

/// A piece of an instruction.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Text(String),
    Variable(&'a str),
}

/// Returns the values of the variables in an instruction, by comparing its text with its expanded text. Returns no values if these
/// are ambiguous.
pub(super) fn values(written: &str, expanded: &str) -> BTreeMap<String, String> {
    values_in(&one_line(written), &one_line(expanded)).unwrap_or_default()
}

/// Returns the variables that an instruction names.
pub(super) fn names(written: &str) -> BTreeSet<String> {
    let line = one_line(written);
    let names = pieces(&line).into_iter().filter_map(|piece| match piece {
        Piece::Variable(name) => Some(name.to_owned()),
        Piece::Text(_) => None,
    });
    names.collect()
}

fn values_in(written: &str, expanded: &str) -> Option<BTreeMap<String, String>> {
    // The text of a heredoc is expanded by other rules, or not at all.
    if written.contains("<<") {
        return None;
    }
    // Skips the instruction's keyword, which the frontend writes in capitals.
    let (_, written) = written.split_once(' ')?;
    let (_, mut rest) = expanded.split_once(' ')?;
    let mut out: BTreeMap<String, String> = BTreeMap::new();
    let mut open: Option<&str> = None;
    let mut close = |name: &str, value: &str| match out.get(name) {
        Some(known) => known == value,
        None => {
            out.insert(name.to_owned(), value.to_owned());
            true
        }
    };
    for piece in pieces(written) {
        match (piece, open.take()) {
            (Piece::Text(text), None) => rest = rest.strip_prefix(&*text)?,
            (Piece::Text(text), Some(name)) => {
                let (value, after) = rest.split_once(&*text)?;
                if !close(name, value) {
                    return None;
                }
                rest = after;
            }
            (Piece::Variable(name), None) => open = Some(name),
            // Two adjacent variables have no border between their values.
            (Piece::Variable(_), Some(_)) => return None,
        }
    }
    match open {
        Some(name) => close(name, rest).then_some(out),
        None => rest.is_empty().then_some(out),
    }
}

/// Returns an instruction as one line without comments, with one space between words.
fn one_line(instruction: &str) -> String {
    let lines = instruction.lines().filter(|line| !line.trim_start().starts_with('#'));
    let lines = lines.map(|line| line.trim_end().trim_end_matches(['\\', '`']));
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

fn pieces(line: &str) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    let mut text = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(['$', '\\']) {
        text.push_str(&rest[..at]);
        let (mark, after) = (&rest[at..=at], &rest[at + 1..]);
        if mark == "\\" {
            // An escaped `$` begins no variable.
            let end = after.chars().next().map_or(0, char::len_utf8);
            text.push_str(&rest[at..at + 1 + end]);
            rest = &after[end..];
            continue;
        }
        let in_braces = after.strip_prefix('{');
        let name = in_braces.unwrap_or(after);
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        let after_name = match in_braces {
            Some(inner) => inner.find('}').map(|close| &inner[close + 1..]),
            None => Some(&after[end..]),
        };
        match after_name.filter(|_| end > 0 && !name.starts_with(|c: char| c.is_ascii_digit())) {
            Some(after_name) => {
                if !text.is_empty() {
                    out.push(Piece::Text(std::mem::take(&mut text)));
                }
                out.push(Piece::Variable(&name[..end]));
                rest = after_name;
            }
            None => {
                text.push('$');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    if !text.is_empty() {
        out.push(Piece::Text(text));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sets_a_variable() {
        let setters =
            Setters::parse("ARG V=1 W\nFROM x\narg lower\nENV A=1 \\\n    B=2\nENV OLD some words=x\nARG A\nRUN ENV=1\n");
        for (name, shown) in [
            ("V", "ARG V"),
            ("W", "ARG W"),
            ("lower", "ARG lower"),
            ("A", "ENV A"),
            ("B", "ENV B"),
            ("OLD", "ENV OLD"),
            ("words", "words"),
        ] {
            assert_eq!(setters.named(name), shown);
        }
    }

    #[test]
    fn values_are_read_off_the_expanded_instruction() {
        let told = |written: &str, expanded: &str| {
            let all = values(written, expanded).into_iter().map(|(name, value)| format!("{name}={value}"));
            all.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told("copy app-$V.tar /x/${W:-y}/", "COPY app-1.2.tar /x/z/"), "V=1.2 W=z");
        assert_eq!(told("ADD $URL /", "ADD https://host/a /"), "URL=https://host/a");
        assert_eq!(told("COPY a-$V \\\n  # why\n  /$V", "COPY a-1   /1"), "V=1");
        assert_eq!(told("WORKDIR /srv/$NAME", "WORKDIR /srv/app"), "NAME=app");
        // Ambiguous: adjacent variables, two values of one variable, another text, a heredoc.
        for (written, expanded) in
            [("COPY $A$B /", "COPY ab /"), ("COPY $A $A", "COPY a b"), ("COPY x$A /", "COPY ya /"), ("COPY <<$A /", "COPY <<x /")]
        {
            assert_eq!(told(written, expanded), "", "{written}");
        }
        assert_eq!(told("COPY \\$A $B/", "COPY \\$A b/"), "B=b");
        assert_eq!(names("RUN echo $A ${B:?x} $1 $"), ["A", "B"].map(str::to_owned).into());
    }
}
