//! Text that no output may show: the address of the loopback endpoint, whose secret path lets a process push to it.
//!
//! The endpoint registers the text to hide. Every event and all output of `report` pass through [`redacted`].

use std::borrow::Cow;
use std::sync::{PoisonError, RwLock};

/// The hidden texts with their replacements, the longest first.
static HIDDEN: RwLock<Vec<(String, &'static str)>> = RwLock::new(Vec::new());

/// Hides this text until the process ends. Outputs show `shown` instead.
pub fn hide(text: &str, shown: &'static str) {
    if text.is_empty() {
        return;
    }
    let mut hidden = HIDDEN.write().unwrap_or_else(PoisonError::into_inner);
    hidden.push((text.to_owned(), shown));
    hidden.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
}

/// Returns the text without hidden texts.
#[must_use]
pub fn redacted(text: &str) -> Cow<'_, str> {
    let mut out = Cow::Borrowed(text);
    for (hidden, shown) in HIDDEN.read().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Some(replaced) = replaced(out.as_bytes(), hidden.as_bytes(), shown.as_bytes()) {
            // Whole characters replaced whole characters.
            out = Cow::Owned(String::from_utf8_lossy(&replaced).into_owned());
        }
    }
    out
}

/// Returns the bytes without hidden texts.
#[must_use]
pub fn redacted_bytes(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut out = Cow::Borrowed(bytes);
    for (hidden, shown) in HIDDEN.read().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Some(replaced) = replaced(&out, hidden.as_bytes(), shown.as_bytes()) {
            out = Cow::Owned(replaced);
        }
    }
    out
}

/// Redacts the text in place.
pub fn redact(text: &mut String) {
    if let Cow::Owned(clean) = redacted(text) {
        *text = clean;
    }
}

/// Replaces every occurrence; returns `None` if there is none. `127.0.0.1:4000` is not in `127.0.0.1:40001`.
fn replaced(bytes: &[u8], hidden: &[u8], shown: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut at, mut copied) = (0, 0);
    let (first, ends_in_digit) = (*hidden.first()?, hidden.last()?.is_ascii_digit() && hidden.contains(&b':'));
    while let Some(next) = bytes.get(at..)?.iter().position(|byte| *byte == first) {
        at += next;
        let end = at + hidden.len();
        let cut = ends_in_digit && bytes.get(end).is_some_and(u8::is_ascii_digit);
        if bytes.get(at..end) == Some(hidden) && !cut {
            out.extend_from_slice(&bytes[copied..at]);
            out.extend_from_slice(shown);
            (at, copied) = (end, end);
        } else {
            at += 1;
        }
    }
    if copied == 0 {
        return None;
    }
    out.extend_from_slice(&bytes[copied..]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_replaced_everywhere() {
        hide("127.0.0.1:40312", "hakobi");
        hide("word-5e0c", "hakobi");
        hide("127.0.0.1:40312/word-5e0c", "hakobi");
        for (text, expected) in [
            ("naming to 127.0.0.1:40312/word-5e0c/image:image done", "naming to hakobi/image:image done"),
            ("dial tcp 127.0.0.1:40312: refused by 127.0.0.1:40312", "dial tcp hakobi: refused by hakobi"),
            ("127.0.0.1:403122 and 127.0.0.1:4031", "127.0.0.1:403122 and 127.0.0.1:4031"),
            ("/v2/word-5e0c/image/blobs", "/v2/hakobi/image/blobs"),
            ("scope=word-5e0c%2Fimage é word-5e0c", "scope=hakobi%2Fimage é hakobi"),
            ("word-5e0cword-5e0c", "hakobihakobi"),
            ("", ""),
            ("nothing", "nothing"),
        ] {
            assert_eq!(redacted(text), expected);
            assert_eq!(&*redacted_bytes(text.as_bytes()), expected.as_bytes());
        }
        assert_eq!(&*redacted_bytes(b"\xff word-5e0c"), b"\xff hakobi");
        let mut text = "word-5e0c".to_owned();
        redact(&mut text);
        assert_eq!(text, "hakobi");
    }
}
