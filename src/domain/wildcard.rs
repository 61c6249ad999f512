//! Patterns of names, as for scopes: `*` stands for any text, also with slashes.

/// Returns whether a whole text matches a pattern.
#[must_use]
pub fn matches_wildcard(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = pattern.rsplit_once('*').map(|(_, last)| last) else { return rest.is_empty() };
    let count = parts.clone().count();
    for part in parts.take(count.saturating_sub(1)) {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        for (pattern, text, expected) in [
            ("main", "main", true),
            ("main", "mains", false),
            ("", "", true),
            ("", "x", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("pr-*", "pr-12", true),
            ("pr-*", "x-pr-1", false),
            ("*-x", "a-x", true),
            ("*-x", "a-x-y", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
            ("a*a", "a", false),
            ("a**", "a", true),
        ] {
            assert_eq!(matches_wildcard(pattern, text), expected, "{pattern} {text}");
        }
    }
}
