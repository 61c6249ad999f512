//! Parses values that several of Docker's flags share: one line of CSV, `key=value`, references, Go's booleans, sizes, durations.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::ImageRef;
use crate::error::{Error, Result};

/// Returns the fields of one line of CSV like Go's `encoding/csv`: `"` quotes a whole field, and `""` is a quotation mark in it.
pub fn fields(line: &str) -> Result<Vec<String>> {
    let bare = || {
        Error::usage(format!("`{line}` has a quotation mark in the middle of a value"))
            .hint("quote the whole field: '\"key=a,b\",other=c'; write a quotation mark itself twice")
    };
    let mut out = Vec::new();
    let mut rest = line;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, next) = match rest.split_once(',') {
                Some((field, next)) => (field, Some(next)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err(bare());
            }
            out.push(field.to_owned());
            match next {
                Some(next) => rest = next,
                None => return Ok(out),
            }
            continue;
        };
        let mut field = String::new();
        let mut tail = quoted;
        loop {
            let (text, after) = tail.split_once('"').ok_or_else(bare)?;
            field.push_str(text);
            match after.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    tail = more;
                }
                None => {
                    tail = after;
                    break;
                }
            }
        }
        out.push(field);
        if tail.is_empty() {
            return Ok(out);
        }
        rest = tail.strip_prefix(',').ok_or_else(bare)?;
    }
}

/// Parses a line of CSV whose fields are `key=value`, in its order. The keys become lower case, as in buildx.
pub fn pairs(flag: &str, line: &str) -> Result<Vec<(String, String)>> {
    fields(line)?
        .into_iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_ascii_lowercase(), value.to_owned())),
            None => Err(Error::usage(format!("invalid --{flag} {line}: expected key=value, not `{field}`"))),
        })
        .collect()
}

/// Parses `key=value`. The value may be missing (`None`).
pub fn key_value<'a>(flag: &str, text: &'a str) -> Result<(&'a str, Option<&'a str>)> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    if key.is_empty() {
        return Err(Error::usage(format!("invalid --{flag} `{text}`: the name before `=` is missing")));
    }
    Ok((key, value))
}

/// Parses a reference. Without a tag it gets `latest`.
pub fn reference(flag: &str, text: &str) -> Result<ImageRef> {
    let reference: ImageRef = text.parse().map_err(|error| Error::usage(format!("invalid --{flag} {text}")).because(&error))?;
    Ok(reference.with_default_tag())
}

/// Parses a boolean of a Docker flag (Go's `strconv.ParseBool`). Returns `None` if it is invalid.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Removes a boolean from a map of attributes. Returns `default` if the map does not have it.
pub fn take_boolean(flag: &str, attributes: &mut BTreeMap<String, String>, key: &str, default: bool) -> Result<bool> {
    match attributes.remove(key) {
        None => Ok(default),
        Some(text) => {
            boolean(&text).ok_or_else(|| Error::usage(format!("invalid --{flag}: `{key}={text}` must be true or false")))
        }
    }
}

/// Parses a duration: `12h`, `7d`, `1w 2d`. A day has 24 hours. `examples` are for the hint.
pub fn duration(flag: &str, text: &str, examples: &str) -> Result<Duration> {
    let span: std::result::Result<jiff::Span, _> = text.parse();
    let seconds = span.and_then(|span| span.total((jiff::Unit::Second, jiff::SpanRelativeTo::days_are_24_hours())));
    seconds.ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(|| {
        Error::usage(format!("invalid duration for --{flag}: `{text}`"))
            .hint(format!("use a number and a unit, for example {examples}"))
    })
}

/// Parses a size in bytes that is not negative.
pub fn bytes(flag: &str, text: &str) -> Result<u64> {
    u64::try_from(size(flag, text)?).map_err(|_| Error::usage(format!("invalid size for --{flag}: `{text}`")))
}

/// Parses a size in bytes like go-units `RAMInBytes`: `64m`, `2g`, `1.5GiB`. Units are powers of 1024.
pub fn size(flag: &str, text: &str) -> Result<i64> {
    let invalid = || {
        Error::usage(format!("invalid size for --{flag}: `{text}`"))
            .hint("use a number with a unit (b, k, m, g or t), for example 64m or 1.5g")
    };
    let split = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(invalid)?;
    let (number, unit) = text.split_at(split + 1);
    let number: f64 = number.trim_end_matches(' ').parse().map_err(|_| invalid())?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(invalid()),
    };
    let bytes = number * 1024_f64.powi(factor);
    // A size above 63 bits is not a valid memory size.
    if !(0.0..9.2e18).contains(&bytes) {
        return Err(invalid());
    }
    #[allow(clippy::cast_possible_truncation)]
    Ok(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_csv_is_read_as_go_reads_it() {
        for (line, expected) in [
            ("a=1,b=2", &["a=1", "b=2"][..]),
            ("a", &["a"]),
            ("a,,b", &["a", "", "b"]),
            ("\"a=1,2\",b=3", &["a=1,2", "b=3"]),
            ("a=1,\"b=\"\"x\"\"\"", &["a=1", "b=\"x\""]),
            ("\"\"", &[""]),
        ] {
            assert_eq!(
                fields(line).ok().as_deref(),
                Some(&expected.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..]),
                "{line}"
            );
        }
        for line in ["a=\"1\"", "\"a", "\"a\"b"] {
            assert!(fields(line).is_err(), "{line}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [("64", 64), ("64b", 64), ("64m", 64 << 20), ("1.5g", 3 << 29), ("2GiB", 2 << 30), ("1 kb", 1024)] {
            assert_eq!(size("shm-size", text).ok(), Some(bytes), "{text}");
        }
        for text in ["", "m", "-1m", "1x", "1mm", "1bb", "9999999999t"] {
            assert!(size("shm-size", text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("1h 30m", 5400), ("7d", 604_800), ("0s", 0)] {
            assert_eq!(duration("save-budget", text, "1m").ok(), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "soon", "90", "-1m"] {
            assert!(duration("save-budget", text, "1m").is_err(), "{text}");
        }
    }

    #[test]
    fn booleans_are_gos() {
        assert_eq!(boolean("T"), Some(true));
        assert_eq!(boolean("False"), Some(false));
        assert_eq!(boolean("yes"), None);
    }
}
