//! The patterns of ignore files.

use hakobi::build_context::{PatternMatcher, clean, matches};
use hakobi::domain::{bytes_of, matches_wildcard, shown, spelled};

/// The longest path, in bytes. A pattern is tried on all directories above a path, so the time is that of its square.
const LONGEST: usize = 1024;

/// Reads the first line of the input as a path, and the others as patterns. The same patterns must always give the same answer.
pub fn ignore(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n').map(|line| spelled(&line[..line.len().min(LONGEST)]));
    let path = lines.next().unwrap_or_default();
    let patterns: Vec<String> = lines.take(20).collect();
    assert_eq!(spelled(&bytes_of(&path)), path);
    let _ = shown(&path);
    for pattern in &patterns {
        assert_eq!(clean(&clean(pattern)), clean(pattern), "{pattern:?}");
        let _ = (matches(pattern, &path), matches_wildcard(pattern, &path));
    }
    let Ok(matcher) = PatternMatcher::new(&patterns) else { return };
    let answer = |matcher: &PatternMatcher| matcher.matches_below(&path, None).map(|(matched, _)| matched);
    assert_eq!(answer(&matcher), answer(&PatternMatcher::new(&patterns).unwrap()));
    // A walk asks for each directory first.
    let mut parent = None;
    for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
        let Ok((_, info)) = matcher.matches_below(&path[..end], parent.as_ref()) else { return };
        parent = Some(info);
    }
}
