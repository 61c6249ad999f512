//! The patterns of `.dockerignore` and of local sources, as moby/patternmatcher reads them.

use regex::Regex;

use super::glob;

/// Why a pattern cannot be used.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a pattern")]
pub struct InvalidPattern(pub String);

/// A list of patterns in which later ones override earlier ones; `!` takes back.
#[derive(Debug, Clone)]
pub struct PatternMatcher {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    exclusion: bool,
    matcher: Matcher,
}

#[derive(Debug, Clone)]
enum Matcher {
    Exact,
    /// The text less a trailing `**`.
    Prefix,
    /// The text less a leading `**`.
    Suffix,
    Regex(Regex),
}

/// Which patterns a directory matched: what its children start from.
#[derive(Debug, Clone, Default)]
pub struct ParentMatch(Vec<bool>);

impl PatternMatcher {
    /// Reads the patterns; blank ones are left out.
    ///
    /// # Errors
    /// If one of them is malformed.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, InvalidPattern> {
        let mut out = Vec::with_capacity(patterns.len());
        for pattern in patterns {
            let pattern = pattern.as_ref().trim();
            if pattern.is_empty() {
                continue;
            }
            let invalid = || InvalidPattern(pattern.to_owned());
            let cleaned = glob::clean(pattern);
            let (exclusion, text) = match cleaned.strip_prefix('!') {
                Some("") => return Err(invalid()),
                Some(rest) => (true, rest.to_owned()),
                None => (false, cleaned),
            };
            if !glob::is_valid(&text) {
                return Err(invalid());
            }
            let matcher = compile(&text).ok_or_else(invalid)?;
            out.push(Pattern { text, exclusion, matcher });
        }
        Ok(Self { patterns: out })
    }

    /// Whether there is no pattern at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The texts of the patterns that do, or do not, take back.
    pub(super) fn texts(&self, exclusion: bool) -> impl Iterator<Item = &str> {
        self.patterns.iter().filter(move |pattern| pattern.exclusion == exclusion).map(|pattern| pattern.text.as_str())
    }

    /// Whether the path, or a directory it lies in, matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.matches_below(path, None).0
    }

    /// Whether the path matches, given what its directory matched (patternmatcher `MatchesUsingParentResults`). Without a
    /// parent, all directories above are tried.
    #[must_use]
    pub fn matches_below(&self, path: &str, parent: Option<&ParentMatch>) -> (bool, ParentMatch) {
        let mut matched = false;
        let mut info = vec![false; self.patterns.len()];
        for (index, pattern) in self.patterns.iter().enumerate() {
            let mut fits = parent.is_some_and(|parent| parent.0.get(index).copied().unwrap_or(false));
            if !fits {
                // A pattern that could change nothing is not looked at.
                if pattern.exclusion != matched {
                    continue;
                }
                fits = pattern.matches(path) || (parent.is_none() && ancestors(path).any(|ancestor| pattern.matches(ancestor)));
            }
            info[index] = fits;
            if fits {
                matched = !pattern.exclusion;
            }
        }
        (matched, ParentMatch(info))
    }
}

fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(index, _)| &path[..index])
}

impl Pattern {
    fn matches(&self, path: &str) -> bool {
        match &self.matcher {
            Matcher::Exact => path == self.text,
            Matcher::Prefix => path.starts_with(&self.text[..self.text.len() - 2]),
            Matcher::Suffix => {
                let suffix = &self.text[2..];
                path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path)
            }
            Matcher::Regex(regex) => regex.is_match(path),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Exact,
    Prefix,
    Suffix,
    Regex,
}

/// The kinds and the regular expression are patternmatcher's (`Pattern.compile`), its oddities included: they decide which
/// files an image gets.
fn compile(text: &str) -> Option<Matcher> {
    let mut go = String::from("^");
    let mut kind = Kind::Exact;
    let mut chars = text.chars().peekable();
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.peek() == Some(&'*') => {
                chars.next();
                if chars.peek() == Some(&'/') {
                    chars.next();
                }
                if chars.peek().is_some() {
                    go.push_str("(.*/)?");
                    kind = Kind::Regex;
                } else if kind == Kind::Exact {
                    kind = Kind::Prefix;
                } else {
                    go.push_str(".*");
                    kind = Kind::Regex;
                }
                if first {
                    kind = Kind::Suffix;
                }
            }
            '*' => {
                go.push_str("[^/]*");
                kind = Kind::Regex;
            }
            '?' => {
                go.push_str("[^/]");
                kind = Kind::Regex;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => {
                go.push('\\');
                go.push(c);
            }
            '\\' => match chars.next() {
                Some(escaped) => {
                    go.push('\\');
                    go.push(escaped);
                    kind = Kind::Regex;
                }
                None => go.push('\\'),
            },
            '[' | ']' => {
                go.push(c);
                kind = Kind::Regex;
            }
            other => go.push(other),
        }
        first = false;
    }
    Some(match kind {
        Kind::Exact => Matcher::Exact,
        Kind::Prefix => Matcher::Prefix,
        Kind::Suffix => Matcher::Suffix,
        Kind::Regex => {
            go.push('$');
            Matcher::Regex(Regex::new(&from_go(&go)?).ok()?)
        }
    })
}

/// The same expression for Rust's regex crate: in its classes `[`, `&&`, `--` and `~~` mean something, in Go's they do not;
/// and Go's `\d`, `\s`, `\w` are ASCII.
fn from_go(go: &str) -> Option<String> {
    let mut out = String::with_capacity(go.len());
    let mut chars = go.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => escape_to(&mut out, chars.next()?),
            '[' => {
                out.push('[');
                if chars.peek() == Some(&'^') {
                    chars.next();
                    out.push('^');
                }
                let mut empty = true;
                loop {
                    let c = chars.next()?;
                    if c == ']' && !empty {
                        break;
                    }
                    empty = false;
                    match c {
                        '\\' => escape_to(&mut out, chars.next()?),
                        // A dash stays one: between two characters it is a range in both.
                        '-' => out.push('-'),
                        c if c.is_ascii_punctuation() => out.extend(['\\', c]),
                        c => out.push(c),
                    }
                }
                out.push(']');
            }
            ']' => out.push_str("\\]"),
            c => out.push(c),
        }
    }
    Some(out)
}

fn escape_to(out: &mut String, escaped: char) {
    match escaped {
        'd' | 's' | 'w' | 'D' | 'S' | 'W' | 'b' | 'B' => out.push_str(&format!("(?-u:\\{escaped})")),
        c if c.is_ascii_punctuation() || c.is_ascii_alphanumeric() => out.extend(['\\', c]),
        // Go takes an escaped character beyond ASCII as itself.
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(patterns: &[&str], path: &str) -> bool {
        PatternMatcher::new(patterns).expect("patterns").matches(path)
    }

    #[test]
    fn patterns_match_as_mobys_do() {
        for (pattern, path, expected) in [
            ("**", "file", true),
            ("**", "file/", true),
            ("**/", "file", true),
            ("**/", "dir/file", true),
            ("**/file", "dir/file", true),
            ("**/file", "file", true),
            ("**/file", "dir/afile", false),
            ("**file", "dir/afile", true),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("dir/**", "dir/dir2/file", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/*", "dir/dir2/dir2/file", true),
            ("*.txt", "a.txt", true),
            ("*.txt", "dir/a.txt", false),
            ("**/*.txt", "dir/sub/a.txt", true),
            ("**/*.txt", "a.txt", true),
            ("a[b-d]e", "ace", true),
            ("a[^b-d]e", "aze", true),
            ("a.b", "axb", false),
            ("a(b)c/def", "a(b)c/def", true),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            ("?", "ä", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("dir", "dir/file", true),
            ("dir/", "dir/file", true),
            ("./dir", "dir/file", true),
            ("/dir", "dir/file", false),
            ("..", ".", false),
            ("**/**/*.txt", "dir/sub/a.txt", true),
            ("abc/**", "abc/x", true),
            ("**/.foo", "bar.foo", false),
            ("a[[]b", "a[b", true),
            ("a[&&]b", "a&b", true),
            ("x/*/y", "x/a/b/y", false),
            ("foo*", "foobar/baz", true),
        ] {
            assert_eq!(ignored(&[pattern], path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn later_patterns_override() {
        assert!(!ignored(&["*", "!a"], "a"));
        assert!(ignored(&["*", "!a"], "b"));
        assert!(!ignored(&["docs", "!docs/README.md"], "docs/README.md"));
        assert!(ignored(&["docs", "!docs/README.md", "docs/README.md"], "docs/README.md"));
        assert!(!ignored(&["!a", ""], "a"));
        assert!(!ignored(&["**", "!dir"], "dir/file"));
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for pattern in ["[", "a[]", "!", "a\\", "[a-]"] {
            assert!(PatternMatcher::new(&[pattern]).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_parents_match_counts_for_its_children() {
        let matcher = PatternMatcher::new(&["a", "!a/keep"]).expect("patterns");
        let (matched, parent) = matcher.matches_below("a", None);
        assert!(matched);
        assert!(matcher.matches_below("a/x", Some(&parent)).0);
        assert!(!matcher.matches_below("a/keep", Some(&parent)).0);
    }
}
