//! Go's `filepath.Clean` and `filepath.Match`, the basis of all of BuildKit's patterns.

use crate::domain::bytes_of;

/// Returns the lexically shortest path (Go `filepath.Clean` with `/`).
#[must_use]
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&"..") | None if !rooted => parts.push(".."),
                _ => {
                    parts.pop();
                }
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Returns whether the whole name matches the shell pattern. Returns `None` if the pattern is malformed (Go `filepath.Match`). Both
/// are [`crate::domain::spelled`]: Go compares bytes, and treats a byte that is not UTF-8 as one character.
///
/// The match goes chunk by chunk, with each star as short as possible. A star stops at a separator and, as in Go, may end inside a
/// character. If a chunk does not match, the rest of the pattern is not checked, even if it is malformed.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> Option<bool> {
    let (pattern, name) = (bytes_of(pattern), bytes_of(name));
    let (mut pattern, mut name) = (&*pattern, &*name);
    while !pattern.is_empty() {
        let (star, chunk, behind) = first_chunk(pattern);
        pattern = behind;
        if star && chunk.is_empty() {
            return Some(!name.contains(&b'/'));
        }
        let tokens = tokens(chunk)?;
        let fits = |name| matches_chunk(&tokens, name).filter(|rest: &&[u8]| !behind.is_empty() || rest.is_empty());
        let stop = if star { name.iter().position(|byte| *byte == b'/').unwrap_or(name.len()) } else { 0 };
        match (0..=stop).find_map(|from| fits(&name[from..])) {
            Some(rest) => name = rest,
            None => return Some(false),
        }
    }
    Some(name.is_empty())
}

/// Returns whether patternmatcher accepts the pattern. It matches the pattern with `.`, which finds most malformed patterns.
#[must_use]
pub(super) fn is_valid(pattern: &str) -> bool {
    matches(pattern, ".").is_some()
}

/// Returns whether the pattern begins with a star, the part before the next star, and the rest (Go `scanChunk`).
fn first_chunk(pattern: &[u8]) -> (bool, &[u8], &[u8]) {
    let stars = pattern.iter().take_while(|byte| **byte == b'*').count();
    let pattern = &pattern[stars..];
    let (mut in_class, mut escaped) = (false, false);
    let next = pattern.iter().position(|byte| {
        match (std::mem::take(&mut escaped), byte) {
            (true, _) => {}
            (_, b'\\') => escaped = true,
            (_, b'[') => in_class = true,
            (_, b']') => in_class = false,
            (_, b'*') => return !in_class,
            _ => {}
        }
        false
    });
    let (chunk, rest) = pattern.split_at(next.unwrap_or(pattern.len()));
    (stars > 0, chunk, rest)
}

enum Token {
    Any,
    Byte(u8),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// Splits the part between two stars into tokens. Returns `None` if it is malformed.
fn tokens(chunk: &[u8]) -> Option<Vec<Token>> {
    let mut tokens = Vec::with_capacity(chunk.len());
    let mut rest = chunk;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        tokens.push(match first {
            b'?' => Token::Any,
            b'\\' => {
                let (&escaped, after) = rest.split_first()?;
                rest = after;
                Token::Byte(escaped)
            }
            b'[' => {
                let negated = rest.first() == Some(&b'^');
                if negated {
                    rest = &rest[1..];
                }
                let mut ranges = Vec::new();
                loop {
                    if rest.first() == Some(&b']') && !ranges.is_empty() {
                        rest = &rest[1..];
                        break;
                    }
                    let low = class_char(&mut rest)?;
                    let high = if rest.first() == Some(&b'-') {
                        rest = &rest[1..];
                        class_char(&mut rest)?
                    } else {
                        low
                    };
                    ranges.push((low, high));
                }
                Token::Class { negated, ranges }
            }
            other => Token::Byte(other),
        });
    }
    Some(tokens)
}

/// Reads a character of a class (Go `getEsc`). It cannot begin with `-` or `]`, and must not be the last of the pattern.
fn class_char(rest: &mut &[u8]) -> Option<char> {
    let mut from = *rest;
    match from.first()? {
        b'-' | b']' => return None,
        b'\\' => from = &from[1..],
        _ => {}
    }
    let (value, length) = go_char(from)?;
    let after = &from[length..];
    if (value == char::REPLACEMENT_CHARACTER && length == 1) || after.is_empty() {
        return None;
    }
    *rest = after;
    Some(value)
}

/// Returns the first character and its length in bytes, as Go decodes them: an invalid byte is U+FFFD of length 1.
fn go_char(bytes: &[u8]) -> Option<(char, usize)> {
    let head = &bytes[..bytes.len().min(4)];
    let valid = head.utf8_chunks().next()?.valid();
    Some(valid.chars().next().map_or((char::REPLACEMENT_CHARACTER, 1), |c| (c, c.len_utf8())))
}

/// Returns the rest of a name after the part that a chunk matches. Returns `None` if the chunk does not match.
fn matches_chunk<'a>(tokens: &[Token], mut name: &'a [u8]) -> Option<&'a [u8]> {
    for token in tokens {
        let (c, length) = go_char(name)?;
        name = match token {
            Token::Byte(byte) => name.strip_prefix(&[*byte])?,
            Token::Any if c == '/' => return None,
            Token::Class { negated, ranges } if ranges.iter().any(|&(low, high)| low <= c && c <= high) == *negated => {
                return None;
            }
            Token::Any | Token::Class { .. } => &name[length..],
        };
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, cleaned) in [
            ("", "."),
            (".", "."),
            ("a//b/", "a/b"),
            ("a/../b", "b"),
            ("../a", "../a"),
            ("/../a", "/a"),
            ("./a/./b", "a/b"),
            ("a/..", "."),
            ("/", "/"),
            ("../../x", "../../x"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }

    #[test]
    fn names_match_as_in_go() {
        for (pattern, name, expected) in [
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "ab/c", Some(false)),
            ("a*/b", "abc/b", Some(true)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[c]", "abc", Some(true)),
            ("ab[^c]", "abc", Some(false)),
            ("ab[b-d]", "abc", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("a???b", "aääxb", Some(true)),
            ("[\\]a]", "]", Some(true)),
            ("[]a]", "]", None),
            ("[-]", "-", None),
            ("[x-]", "x", None),
            ("[", "a", None),
            ("a\\", "a", None),
            ("*x", "xxx", Some(true)),
            ("", "", Some(true)),
            ("**", "a", Some(true)),
            ("*", "", Some(true)),
            ("a*", "a/b", Some(false)),
            ("a[^a]b", "a/b", Some(true)),
            ("*??", "€", Some(true)),
            ("??", "€", Some(false)),
            ("[a-ζ]*", "α", Some(true)),
            ("*[a-ζ]", "A", Some(false)),
            ("a[^a][^a][^a]b", "a☺b", Some(false)),
            ("a[^a]b", "a☺b", Some(true)),
            ("[\\-x]", "-", Some(true)),
            ("[x\\-]", "z", Some(false)),
            ("[a-b-c]", "a", None),
            ("[-x]", "x", None),
            ("[a-", "a", None),
            ("[^bc", "a", None),
            ("a[", "ab", None),
            ("a[", "x", None),
            ("a/b[", "x", None),
            ("*x", "/xxx", Some(false)),
            ("a*[", "b", Some(false)),
            ("a*[", "ab", None),
            ("a*b[", "a/", None),
            ("*[*]", "a*", Some(true)),
            ("\\[*", "[x", Some(true)),
            ("b*\\", ".", Some(false)),
            ("*b\\", ".", None),
            ("a]*", "a]b", Some(true)),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_byte_that_is_not_utf8_is_a_character_of_its_own() {
        let spelled = crate::domain::spelled;
        for (pattern, name, expected) in [
            (&b"caf?"[..], &b"caf\xe9"[..], Some(true)),
            (b"c*", b"caf\xe9", Some(true)),
            (b"caf\xe9", b"caf\xe9", Some(true)),
            (b"caf\xe9", b"caf\xe8", Some(false)),
            ("caf\u{fffd}".as_bytes(), b"caf\xe9", Some(false)),
            ("caf[\u{fffd}]".as_bytes(), b"caf\xe9", Some(true)),
            (b"caf[^a-z]", b"caf\xe9", Some(true)),
            (b"[\xe9]", b"\xe9", None),
            (b"??", b"\xe9\xe9", Some(true)),
            ("?".as_bytes(), "\u{f0080}".as_bytes(), Some(true)),
        ] {
            assert_eq!(
                matches(&spelled(pattern), &spelled(name)),
                expected,
                "{} {}",
                pattern.escape_ascii(),
                name.escape_ascii()
            );
        }
    }
}
