//! The variables that a Dockerfile declares, as far as its text shows them. hakobi uses them only to hide values in outputs and
//! records.

/// A variable with its value in the text. `None` if it has no value, or its value contains other variables.
type Variable = (String, Option<String>);

/// Returns the variables of all `ARG` and `ENV` instructions.
#[must_use]
pub fn declared(dockerfile: &str) -> Vec<Variable> {
    let mut out = Vec::new();
    for instruction in instructions(dockerfile) {
        let Some((word, rest)) = instruction.trim_start().split_once(char::is_whitespace) else { continue };
        let is_env = word.eq_ignore_ascii_case("env");
        if !is_env && !word.eq_ignore_ascii_case("arg") {
            continue;
        }
        let words = words(rest);
        match &words[..] {
            // `ENV NAME all of the line`
            [name, ..] if is_env && !name.contains('=') => {
                let value = rest.trim_start().strip_prefix(name.as_str()).unwrap_or_default();
                out.push(variable(name, Some(value.trim())));
            }
            words => out.extend(words.iter().map(|word| match word.split_once('=') {
                Some((name, value)) => variable(name, Some(value)),
                None => variable(word, None),
            })),
        }
    }
    out
}

fn variable(name: &str, value: Option<&str>) -> Variable {
    (name.to_owned(), value.filter(|value| !value.is_empty() && !value.contains('$')).map(ToOwned::to_owned))
}

/// Returns the instructions with their continuation lines. Leaves out the comments between these.
fn instructions(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        // The backtick is the other character that continues a line in a Dockerfile.
        if let Some(front) = trimmed.strip_suffix(['\\', '`']) {
            open.push_str(front);
            open.push(' ');
        } else {
            open.push_str(trimmed);
            out.push(std::mem::take(&mut open));
        }
    }
    out.push(open);
    out
}

/// Splits a line into words like the Dockerfile's shell, and removes the quotes.
fn words(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let (mut word, mut quote) = (None::<String>, None);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('\\', None | Some('"')) if characters.peek().is_some() => word.get_or_insert_default().extend(characters.next()),
            (c, None) if c.is_whitespace() => out.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_in_every_form() {
        let text = "ARG API_TOKEN=one\nFROM a\nENV A=\"x y\" B='z' \\\n  # no\n  C=\\\"q\narg D\nENV OLD all of it\nENV E=${A}1\nRUN ARG=2\n";
        let found = declared(text);
        let found: Vec<(&str, Option<&str>)> = found.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let expected = [
            ("API_TOKEN", Some("one")),
            ("A", Some("x y")),
            ("B", Some("z")),
            ("C", Some("\"q")),
            ("D", None),
            ("OLD", Some("all of it")),
            ("E", None),
        ];
        assert_eq!(found, expected);
    }
}
