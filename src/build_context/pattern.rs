//! The patterns of `.dockerignore` and of local sources, with the rules of moby/patternmatcher.

use std::borrow::Cow;

use regex::Regex;

use super::{glob, go_regex};
use crate::domain::{bytes_of, shown};

/// The reason why a pattern is unusable.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("syntax error in pattern `{}`", shown(.0))]
pub struct InvalidPattern(pub String);

/// A list of patterns, [`crate::domain::spelled`]. Later patterns override earlier ones; a pattern with `!` reverses an earlier
/// match.
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
    /// The text without a trailing `**`.
    Prefix,
    /// The text without a leading `**`.
    Suffix,
    Regex(Regex),
    /// A malformed expression: patternmatcher fails when it matches a path with it.
    Malformed,
}

/// The patterns that a directory matched, as the start for its children.
#[derive(Debug, Clone, Default)]
pub struct ParentMatch(Vec<bool>);

impl PatternMatcher {
    /// Reads the patterns, and ignores blank ones.
    ///
    /// # Errors
    /// If a pattern is malformed.
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
            let matcher = compile(&text);
            out.push(Pattern { text, exclusion, matcher });
        }
        Ok(Self { patterns: out })
    }

    /// Returns whether there are no patterns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Returns the texts of the patterns with `!`, or of those without.
    pub(super) fn texts(&self, exclusion: bool) -> impl Iterator<Item = &str> {
        self.patterns.iter().filter(move |pattern| pattern.exclusion == exclusion).map(|pattern| pattern.text.as_str())
    }

    /// Returns whether the path matches, given the matches of its directory (patternmatcher `MatchesUsingParentResults`). Without a
    /// parent, it tries all directories above.
    ///
    /// # Errors
    /// If a pattern that decides is malformed: the check of a pattern alone does not find all malformed patterns.
    pub fn matches_below(&self, path: &str, parent: Option<&ParentMatch>) -> Result<(bool, ParentMatch), InvalidPattern> {
        let mut matched = false;
        let mut info = vec![false; self.patterns.len()];
        for (index, pattern) in self.patterns.iter().enumerate() {
            let mut fits = parent.is_some_and(|parent| parent.0.get(index).copied().unwrap_or(false));
            if !fits {
                // A pattern that cannot change the result is not tried.
                if pattern.exclusion != matched {
                    continue;
                }
                fits = pattern.matches(path)?;
                if !fits && parent.is_none() {
                    for ancestor in ancestors(path) {
                        fits |= pattern.matches(ancestor)?;
                    }
                }
            }
            info[index] = fits;
            if fits {
                matched = !pattern.exclusion;
            }
        }
        Ok((matched, ParentMatch(info)))
    }
}

/// Returns a name as Go's regular expressions see it: a byte that is not UTF-8 is U+FFFD.
fn runes(name: &str) -> Cow<'_, str> {
    match bytes_of(name) {
        Cow::Borrowed(_) => Cow::Borrowed(name),
        Cow::Owned(bytes) => bytes
            .utf8_chunks()
            .flat_map(|chunk| chunk.valid().chars().chain(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER)))
            .collect::<String>()
            .into(),
    }
}

fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(index, _)| &path[..index])
}

impl Pattern {
    fn matches(&self, path: &str) -> Result<bool, InvalidPattern> {
        Ok(match &self.matcher {
            Matcher::Malformed => return Err(InvalidPattern(self.text.clone())),
            Matcher::Exact => path == self.text,
            Matcher::Prefix => path.starts_with(&self.text[..self.text.len() - 2]),
            Matcher::Suffix => {
                let suffix = &self.text[2..];
                path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path)
            }
            Matcher::Regex(regex) => regex.is_match(&runes(path)),
        })
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
fn compile(text: &str) -> Matcher {
    let mut go = String::from("^");
    let mut kind = Kind::Exact;
    let text = runes(text);
    // Go's scanner skips a byte order mark at the beginning.
    let mut chars = text.strip_prefix('\u{feff}').unwrap_or(&text).chars().peekable();
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
            // `|`, `{` and `}` are not in this list. patternmatcher means to escape them too, but its table of characters ends
            // before them.
            '.' | '+' | '(' | ')' | '$' => {
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
    match kind {
        Kind::Exact => Matcher::Exact,
        Kind::Prefix => Matcher::Prefix,
        Kind::Suffix => Matcher::Suffix,
        Kind::Regex => {
            go.push('$');
            go_regex::compile(&go).map_or(Matcher::Malformed, Matcher::Regex)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(patterns: &[&str], path: &str) -> bool {
        PatternMatcher::new(patterns).expect("patterns").matches_below(path, None).expect("a pattern").0
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
            ("\\<", "<", true),
            ("\\>x", ">x", true),
            ("[<>y]", ">", true),
            ("[<>y]", "z", false),
            ("[[:alpha:]]", "q", true),
            ("[[:alpha:]]", "q]", false),
            ("[*]", "[", false),
            ("[*]", "^/]", true),
            ("a\\.b", "a.b", true),
            ("a\\d", "a1", true),
            ("a\\d", "ad", false),
            ("^a", "^a", true),
            ("^a*", "^ab", false),
            ("?a|b", "xa", true),
            ("?a|b", "x/cb", true),
            ("[a]{2}", "aa", true),
            ("*.{a,b}", "x.{a,b}", true),
            ("*.{a,b}", "x.a", false),
            ("\u{feff}a*", "ab", true),
            ("**/", "dir/file/", true),
            ("**/dir2/**", "dir/dir2/dir3/file", true),
            ("**/file*.txt*", "dir/dir/file.txt", true),
            ("**/**/*.txt2", "dir/dir/file.txt", false),
            ("a**/*.txt", "a/dir/dir/file.txt", true),
            ("a/*.txt**", "a/file.txt", true),
            ("a[b-d]e", "aae", false),
            (".*", "foo", false),
            ("abc?def", "abcdef", false),
            ("a\\\\", "a\\", true),
            ("**/foo/bar", "dir/dir2/foo/bar", true),
            ("a(b)c/def", "a(b)c/xyz", false),
            // Go's rules do not treat either as malformed: the part after the first star is not checked.
            ("aba*b\\", "abaxb", false),
            ("aba*b\\", "abaxb$x", true),
            ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
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
        for pattern in ["[", "a[]", "!", "a\\", "[a-]", "**[", "*a\\"] {
            assert!(PatternMatcher::new(&[pattern]).is_err(), "{pattern}");
        }
        // These are malformed only when a path is matched with them.
        for pattern in ["\\y", "a\\1", "[z-a]", "[[:x:]]", "\\ä", "a*["] {
            let matcher = PatternMatcher::new(&[pattern]).expect("patterns");
            assert!(matcher.matches_below("q", None).is_err(), "{pattern}");
            assert!(
                !PatternMatcher::new(&[&format!("!{pattern}")]).expect("patterns").matches_below("q", None).expect("not tried").0
            );
        }
    }

    #[test]
    fn a_parents_match_counts_for_its_children() {
        let matcher = PatternMatcher::new(&["a", "!a/keep"]).expect("patterns");
        let (matched, parent) = matcher.matches_below("a", None).expect("a pattern");
        assert!(matched);
        assert!(matcher.matches_below("a/x", Some(&parent)).expect("a pattern").0);
        assert!(!matcher.matches_below("a/keep", Some(&parent)).expect("a pattern").0);
    }
}
