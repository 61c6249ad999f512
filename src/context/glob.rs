//! Go's `filepath.Clean` and `filepath.Match`, on which all of BuildKit's patterns rest.

/// Lexically the shortest path (Go `filepath.Clean` with `/`).
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

/// Whether the whole name matches the shell pattern; nothing where the pattern is malformed (Go `filepath.Match`).
#[must_use]
pub fn matches(pattern: &str, name: &str) -> Option<bool> {
    let pattern: Vec<char> = pattern.chars().collect();
    let tokens = tokenize(&pattern)?;
    let name: Vec<char> = name.chars().collect();
    Some(matches_tokens(&tokens, &name))
}

/// Whether `filepath.Match` takes the pattern at all.
#[must_use]
pub(super) fn is_valid(pattern: &str) -> bool {
    tokenize(&pattern.chars().collect::<Vec<_>>()).is_some()
}

enum Token {
    Star,
    Any,
    Literal(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

fn tokenize(pattern: &[char]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        tokens.push(match first {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => {
                let (&escaped, after) = rest.split_first()?;
                rest = after;
                Token::Literal(escaped)
            }
            '[' => {
                let negated = rest.first() == Some(&'^');
                if negated {
                    rest = &rest[1..];
                }
                let mut ranges = Vec::new();
                loop {
                    if rest.first() == Some(&']') && !ranges.is_empty() {
                        rest = &rest[1..];
                        break;
                    }
                    let low = class_char(&mut rest)?;
                    let high = if rest.first() == Some(&'-') {
                        rest = &rest[1..];
                        class_char(&mut rest)?
                    } else {
                        low
                    };
                    ranges.push((low, high));
                }
                Token::Class { negated, ranges }
            }
            other => Token::Literal(other),
        });
    }
    Some(tokens)
}

/// Go `getEsc`: a character of a class, which neither `-` nor `]` can begin and which must not be the pattern's last.
fn class_char(rest: &mut &[char]) -> Option<char> {
    let (&first, mut after) = rest.split_first()?;
    let value = match first {
        '-' | ']' => return None,
        '\\' => {
            let (&escaped, behind) = after.split_first()?;
            after = behind;
            escaped
        }
        other => other,
    };
    if after.is_empty() {
        return None;
    }
    *rest = after;
    Some(value)
}

fn matches_tokens(tokens: &[Token], name: &[char]) -> bool {
    // Greedy with one point to go back to: the last star. A star stops at a separator.
    let (mut t, mut n) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        let fits = match (tokens.get(t), name.get(n)) {
            (None, None) => return true,
            (Some(Token::Star), _) => {
                back = Some((t, n));
                t += 1;
                continue;
            }
            (Some(Token::Any), Some(&c)) => c != '/',
            (Some(Token::Literal(literal)), Some(c)) => literal == c,
            (Some(Token::Class { negated, ranges }), Some(&c)) => {
                ranges.iter().any(|&(low, high)| low <= c && c <= high) != *negated
            }
            _ => false,
        };
        if fits {
            t += 1;
            n += 1;
            continue;
        }
        match back {
            Some((star, from)) if name.get(from).is_some_and(|&c| c != '/') => {
                back = Some((star, from + 1));
                t = star + 1;
                n = from + 1;
            }
            _ => return false,
        }
    }
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
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
