//! Names of entries and targets of links, lexically: no name in an archive ever becomes a path of this machine.

use super::error::{Error, Result};

/// The maximum length of a name, in bytes: Linux's own limit.
const LONGEST: usize = 4096;

/// Returns a name as in the archive's records, without `./`. It is empty for the root itself.
///
/// # Errors
/// If the name leads out of the archive, is not text, or is too long.
pub(super) fn normal(name: &[u8]) -> Result<String> {
    let text = text(name)?;
    if text.starts_with('/') {
        return Err(Error::malformed(format!("the archive has an entry with an absolute name: {text}")));
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(Error::malformed(format!("the archive has an entry with `..` in its name: {text}"))),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// Returns the target of a symbolic link at `from`, a normal name.
///
/// # Errors
/// If it leads out of the archive.
pub(super) fn linked(from: &str, target: &[u8]) -> Result<String> {
    let target = text(target)?;
    let out = || Error::malformed(format!("the archive has a link that points outside of it: {from} -> {target}"));
    if target.starts_with('/') {
        return Err(out());
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or_else(out)?),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

fn text(name: &[u8]) -> Result<&str> {
    if name.len() > LONGEST {
        return Err(Error::malformed(format!("the archive has a name of {} bytes; the limit is {LONGEST}", name.len())));
    }
    match std::str::from_utf8(name) {
        // Messages contain names: they must not contain characters that control a terminal.
        Ok(text) if !text.chars().any(char::is_control) => Ok(text),
        _ => Err(Error::malformed(format!("the archive has a name that is not valid text: {}", name.escape_ascii()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for (name, normalised) in [("a/b", "a/b"), ("./a//b/", "a/b"), ("./", ""), ("..a", "..a")] {
            assert_eq!(normal(name.as_bytes()).expect("a name"), normalised);
        }
        for name in ["/a", "../a", "a/../b", "a/..", "a\0b", "a\x1b[2J"] {
            assert!(normal(name.as_bytes()).is_err(), "{name}");
        }
        assert!(normal(b"\xff").is_err());
        assert!(normal(&[b'a'; 5000]).is_err());
    }

    #[test]
    fn links_stay_inside() {
        assert_eq!(linked("b/layer.tar", b"../a/layer.tar").expect("a link"), "a/layer.tar");
        assert_eq!(linked("b", b"a").expect("a link"), "a");
        for target in ["../../a", "/a"] {
            assert!(linked("b/layer.tar", target.as_bytes()).is_err(), "{target}");
        }
    }
}
