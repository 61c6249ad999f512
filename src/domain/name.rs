//! Names of files as text. Linux has names of bytes. In hakobi, a name, a path, a link's target and a pattern is a `String` in one
//! reversible spelling, and every boundary (file system, tar, BuildKit's messages) converts here.
//!
//! A byte that is not part of UTF-8 becomes one character of a private range, [`FIRST`]` + byte`. A character of that range in a
//! real name is spelled byte by byte in the same way. So no two names have the same spelling, plain UTF-8 is spelled as it is, and
//! `/` and `.` mean the same as in bytes.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The spelling of the byte 0, which never needs it: spelled bytes are 0x80 and above.
const FIRST: u32 = 0xF_0000;

/// Returns the spelling of a name's or path's bytes.
#[must_use]
pub fn spelled(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let raw =
        |out: &mut String, bytes: &[u8]| out.extend(bytes.iter().filter_map(|byte| char::from_u32(FIRST + u32::from(*byte))));
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match byte_of(c) {
                Some(_) => raw(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes()),
                None => out.push(c),
            }
        }
        raw(&mut out, chunk.invalid());
    }
    out
}

/// Returns the spelling of a text from elsewhere, like a path in BuildKit's graph. Only characters of the private range change.
#[must_use]
pub fn spelled_text(text: &str) -> Cow<'_, str> {
    if is_plain(text) { Cow::Borrowed(text) } else { Cow::Owned(spelled(text.as_bytes())) }
}

/// Returns the bytes of a spelling.
#[must_use]
pub fn bytes_of(name: &str) -> Cow<'_, [u8]> {
    if is_plain(name) {
        return Cow::Borrowed(name.as_bytes());
    }
    let mut out = Vec::with_capacity(name.len());
    for c in name.chars() {
        match byte_of(c) {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(out)
}

/// Returns the path on a file system of a spelling.
#[must_use]
pub fn path_of(name: &str) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&bytes_of(name)))
}

/// Returns whether a name is UTF-8. Recent versions of BuildKit accept only such names in their messages.
#[must_use]
pub fn is_utf8(name: &str) -> bool {
    is_plain(name) || std::str::from_utf8(&bytes_of(name)).is_ok()
}

/// Returns a name for the user: bytes that are not UTF-8 become `\xNN`.
#[must_use]
pub fn shown(name: &str) -> Cow<'_, str> {
    if is_plain(name) {
        return Cow::Borrowed(name);
    }
    let bytes = bytes_of(name);
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    Cow::Owned(out)
}

fn is_plain(text: &str) -> bool {
    text.is_ascii() || !text.chars().any(|c| byte_of(c).is_some())
}

fn byte_of(c: char) -> Option<u8> {
    u32::from(c).checked_sub(FIRST).and_then(|byte| u8::try_from(byte).ok()).filter(|byte| *byte >= 0x80)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::seq::IndexedRandom as _;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    /// Random bytes with edge cases: text, broken text, and characters of the private range.
    fn name(random: &mut StdRng) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..random.random_range(0..8) {
            match random.random_range(0..4) {
                0 => out.push(random.random()),
                1 => out.extend(random.random::<char>().to_string().bytes()),
                2 => out.extend(char::from_u32(0xF_0000 + random.random_range(0..0x110)).unwrap().to_string().bytes()),
                _ => out.extend(*[&b"/"[..], b"\xf3\xb0", b"\x82", b"\x80", b"a"].choose(random).unwrap()),
            }
        }
        out
    }

    #[test]
    fn a_spelling_stands_for_one_name_and_is_made_name_by_name() {
        let random = &mut StdRng::seed_from_u64(1);
        for _ in 0..20_000 {
            let (a, b) = (name(random), name(random));
            let (one, other) = (spelled(&a), spelled(&b));
            assert_eq!(bytes_of(&one), a);
            assert_eq!(one == other, a == b, "{a:x?} {b:x?}");
            assert_eq!(is_utf8(&one), std::str::from_utf8(&a).is_ok(), "{a:x?}");
            let parts: Vec<String> = a.split(|byte| *byte == b'/').map(spelled).collect();
            assert_eq!(one, parts.join("/"));
            if let Ok(text) = std::str::from_utf8(&a) {
                assert_eq!(spelled_text(text), one);
                assert!(is_plain(text) == (one == text) && shown(&one) == text);
            }
        }
    }

    #[test]
    fn a_person_sees_the_bytes() {
        assert_eq!(shown(&spelled(b"caf\xe9/\xc3\xa4")), "caf\\xe9/ä");
        assert_eq!(path_of(&spelled(b"\xe9")).as_os_str().as_bytes(), b"\xe9");
    }
}
