//! Converts the regular expressions that patternmatcher makes of patterns for Rust's regex crate.
//!
//! The two differ on `\<`, `\d`, `[[]`, `[a&&b]` and more. hakobi therefore parses an expression by Go's rules (`regexp/syntax`,
//! `Parse` with `Perl`), as far as such expressions need. It then writes the expression again with every character as a number.

use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::Chars;

use regex::Regex;

/// Compiles Go's expression. Returns `None` if Go does not compile it.
pub(super) fn compile(go: &str) -> Option<Regex> {
    Regex::new(&translated(go)?).ok()
}

fn translated(go: &str) -> Option<String> {
    let mut out = String::with_capacity(go.len() * 4);
    let mut rest = go.chars().peekable();
    let mut repeated = false;
    while let Some(c) = rest.next() {
        let was_repeated = std::mem::take(&mut repeated);
        match c {
            '\\' => escape(&mut out, &mut rest)?,
            '[' => class(&mut out, &mut rest)?,
            '*' | '?' => {
                repeated = true;
                out.push(c);
            }
            '{' => match repetition(&mut rest) {
                // Go rejects a repetition of a repetition.
                Some(_) if was_repeated => return None,
                Some((least, most)) => {
                    repeated = true;
                    out.push_str(&bounds(least, most)?);
                }
                None => character(&mut out, c),
            },
            // patternmatcher escapes all other special characters.
            '^' | '$' | '.' | '(' | ')' | '|' => out.push(c),
            c => character(&mut out, c),
        }
    }
    Some(out)
}

/// Reads `{2}`, `{2,}` or `{2,3}` after its brace. Returns `None`, and reads nothing, if it is text (Go `parser.repeat`).
fn repetition(rest: &mut Peekable<Chars<'_>>) -> Option<(usize, Option<usize>)> {
    let mut behind = rest.clone();
    let number = |from: &mut Peekable<Chars<'_>>| {
        let mut digits = String::new();
        while let Some(digit) = from.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        let plain = !digits.is_empty() && (digits.len() == 1 || !digits.starts_with('0'));
        // A number with too many digits is always too large.
        plain.then(|| digits.parse().unwrap_or(usize::MAX))
    };
    let least = number(&mut behind)?;
    let most = match behind.next()? {
        '}' => Some(least),
        ',' if behind.next_if_eq(&'}').is_some() => None,
        ',' => {
            let most = number(&mut behind)?;
            behind.next_if_eq(&'}')?;
            Some(most)
        }
        _ => return None,
    };
    *rest = behind;
    Some((least, most))
}

/// Returns a repetition. Returns `None` if Go rejects it.
fn bounds(least: usize, most: Option<usize>) -> Option<String> {
    const MOST: usize = 1000;
    match most {
        _ if least > MOST => None,
        Some(most) if most > MOST || most < least => None,
        Some(most) => Some(format!("{{{least},{most}}}")),
        None => Some(format!("{{{least},}}")),
    }
}

fn character(out: &mut String, c: char) {
    // Writing to a string never fails.
    let _ = write!(out, "\\x{{{:x}}}", u32::from(c));
}

/// Converts the characters after a backslash outside of a class.
fn escape(out: &mut String, rest: &mut Peekable<Chars<'_>>) -> Option<()> {
    match *rest.peek()? {
        c @ ('A' | 'z' | 'b' | 'B') => {
            rest.next();
            let _ = write!(out, "(?-u:\\{c})");
        }
        'Q' => {
            rest.next();
            let text: String = rest.by_ref().collect();
            let (quoted, behind) = text.split_once("\\E").unwrap_or((&text, ""));
            quoted.chars().for_each(|c| character(out, c));
            out.push_str(&translated(behind)?);
        }
        _ => match set(rest)? {
            Some(set) => out.push_str(&set),
            None => character(out, escaped(rest)?),
        },
    }
    Some(())
}

/// Reads a named set of characters after a backslash. The outer `None` means that there is no such set, the inner that it is
/// another escape.
fn set(rest: &mut Peekable<Chars<'_>>) -> Option<Option<String>> {
    let named = |c| {
        Some(match c {
            'd' => "[0-9]",
            'D' => "[^0-9]",
            's' => "[\\t\\n\\f\\r ]",
            'S' => "[^\\t\\n\\f\\r ]",
            'w' => "[0-9A-Za-z_]",
            'W' => "[^0-9A-Za-z_]",
            _ => return None,
        })
    };
    let c = *rest.peek()?;
    if let Some(set) = named(c) {
        rest.next();
        return Some(Some(set.to_owned()));
    }
    if !matches!(c, 'p' | 'P') {
        return Some(None);
    }
    rest.next();
    let name = match rest.next()? {
        '{' => braced(rest)?,
        letter => letter.to_string(),
    };
    let (negated, name) = match name.strip_prefix('^') {
        Some(name) => (c == 'p', name),
        None => (c == 'P', &*name),
    };
    let set = match name {
        "Any" => "\\x{0}-\\x{10ffff}".to_owned(),
        name if CATEGORIES.split(' ').any(|category| category == name) => format!("\\p{{{name}}}"),
        name if name.len() > 2 && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_') => {
            format!("\\p{{Script={name}}}")
        }
        _ => return None,
    };
    Some(Some(format!("[{}{set}]", if negated { "^" } else { "" })))
}

/// Go's names of the general categories of Unicode.
const CATEGORIES: &str = "C Cc Cf Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs";

/// Returns the text before the next closing brace, and reads that brace too.
fn braced(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut out = String::new();
    loop {
        match rest.next()? {
            '}' => return Some(out),
            c => out.push(c),
        }
    }
}

/// Returns the character of an escape (Go `parser.parseEscape`).
fn escaped(rest: &mut Peekable<Chars<'_>>) -> Option<char> {
    let c = rest.next()?;
    let octal = |rest: &mut Peekable<Chars<'_>>| rest.next_if(|c| ('0'..='7').contains(c)).and_then(|c| c.to_digit(8));
    match c {
        '1'..='7' if !rest.peek().is_some_and(|next| ('0'..='7').contains(next)) => None,
        '0'..='7' => {
            let mut number = c.to_digit(8)?;
            for _ in 0..2 {
                let Some(digit) = octal(rest) else { break };
                number = number * 8 + digit;
            }
            char::from_u32(number)
        }
        'x' if rest.next_if_eq(&'{').is_some() => {
            let digits = braced(rest)?;
            let digits = if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) { digits.trim_start_matches('0') } else { "" };
            u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)
        }
        'x' => {
            let (high, low) = (rest.next()?.to_digit(16)?, rest.next()?.to_digit(16)?);
            char::from_u32(high * 16 + low)
        }
        'a' => Some('\x07'),
        'f' => Some('\x0c'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\x0b'),
        c if c.is_ascii_alphanumeric() => None,
        c if c.is_ascii() => Some(c),
        // Go rejects an escaped character beyond ASCII.
        _ => None,
    }
}

/// Converts a class after its `[` (Go `parser.parseClass`).
fn class(out: &mut String, rest: &mut Peekable<Chars<'_>>) -> Option<()> {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    loop {
        let c = *rest.peek()?;
        if c == ']' && !first {
            rest.next();
            break;
        }
        first = false;
        if let Some(name) = posix(rest) {
            out.push_str(&name?);
            continue;
        }
        if c == '\\' {
            let mut behind = rest.clone();
            behind.next();
            if let Some(set) = set(&mut behind)? {
                *rest = behind;
                out.push_str(&set);
                continue;
            }
        }
        let low = class_character(rest)?;
        let mut high = low;
        let mut behind = rest.clone();
        if behind.next() == Some('-') && behind.peek().is_some_and(|next| *next != ']') {
            *rest = behind;
            high = class_character(rest)?;
        }
        if high < low {
            return None;
        }
        character(out, low);
        out.push('-');
        character(out, high);
    }
    out.push(']');
    Some(())
}

fn class_character(rest: &mut Peekable<Chars<'_>>) -> Option<char> {
    match rest.next()? {
        '\\' => escaped(rest),
        c => Some(c),
    }
}

/// Reads a `[:name:]`. The inner `None` means that there is no such name.
fn posix(rest: &mut Peekable<Chars<'_>>) -> Option<Option<String>> {
    const NAMES: [&str; 14] = [
        "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
        "xdigit",
    ];
    let text: String = rest.clone().collect();
    let (name, _) = text.strip_prefix("[:")?.split_once(":]")?;
    for _ in 0..name.chars().count() + 4 {
        rest.next();
    }
    let known = NAMES.contains(&name.strip_prefix('^').unwrap_or(name));
    Some(known.then(|| format!("[:{name}:]")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_mean_what_they_mean_in_go() {
        for (go, text, expected) in [
            (r"^\<$", "<", Some(true)),
            (r"^\>$", "", Some(false)),
            (r"^[<>y]$", ">", Some(true)),
            (r"^[\<y]$", "<", Some(true)),
            (r"^[[]$", "[", Some(true)),
            (r"^[a&&b]$", "&", Some(true)),
            (r"^[a--b]$", "b", None),
            (r"^[+--]$", ",", Some(true)),
            (r"^[a~~b]$", "~", Some(true)),
            (r"^[]a]$", "]", Some(true)),
            (r"^[a-]$", "-", Some(true)),
            (r"^[-a]$", "-", Some(true)),
            (r"^[b-a]$", "a", None),
            (r"^[[:alpha:]]$", "q", Some(true)),
            (r"^[[:^alpha:]]$", "q", Some(false)),
            (r"^[[:alpha:]-z]$", "-", Some(true)),
            (r"^[[:no:]]$", "n", None),
            (r"^[[:alpha]$", ":", Some(true)),
            (r"^\d$", "٣", Some(false)),
            (r"^[\d]$", "3", Some(true)),
            (r"^[^\D]$", "3", Some(true)),
            (r"^\w$", "ä", Some(false)),
            (r"^\s$", "\x0b", Some(false)),
            (r"^a\b$", "a", Some(true)),
            (r"^\x41\101$", "AA", Some(true)),
            (r"^\0$", "\0", Some(true)),
            (r"^\1$", "1", None),
            (r"^\8$", "8", None),
            (r"^\y$", "y", None),
            (r"^\_$", "_", Some(true)),
            (r"^\ä$", "ä", None),
            (r"^\pL$", "ä", Some(true)),
            (r"^\PL$", "ä", Some(false)),
            (r"^\pX$", "x", None),
            (r"^\p{Greek}$", "ζ", Some(true)),
            (r"^\P{^Lu}$", "A", Some(true)),
            (r"^[\p{Lu}x]$", "A", Some(true)),
            (r"^\p{Letter$", "A", None),
            (r"^\p{Any}$", "\n", Some(true)),
            (r"^\x{61}$", "a", Some(true)),
            (r"^\x{}$", "a", None),
            (r"^\x{6g}$", "a", None),
            (r"^\C$", "x", None),
            (r"^\Qa[^/]*$", "a[^/]*$", Some(true)),
            (r"^\Qa.\Eb$", "a.b", Some(true)),
            (r"^[[^/]*]$", "^/[]", Some(true)),
            (r"^[^/]*$", "a\nb", Some(true)),
            (r"^.*$", "a\nb", Some(false)),
            (r"^a^b$", "a^b", Some(false)),
            (r"^a|b$", "ax", Some(true)),
            (r"^a|b$", "x/b", Some(true)),
            (r"^a{2}$", "aa", Some(true)),
            (r"^ba{2,3}$", "baaaa", Some(false)),
            (r"^a{2,}$", "aaaa", Some(true)),
            (r"^a{,2}$", "a{,2}", Some(true)),
            (r"^a{02}$", "a{02}", Some(true)),
            (r"^a{x}$", "a{x}", Some(true)),
            (r"^a{2$", "a{2", Some(true)),
            (r"^a{3,2}$", "a", None),
            (r"^a{1001}$", "a", None),
            (r"^[^/]*{2}$", "a", None),
            (r"^a{2}{2}$", "aaaa", None),
            (r"^a|{2}$", "a", None),
            (r"^[\b]$", "b", None),
            (r"^[", "", None),
            (r"^\", "", None),
        ] {
            assert_eq!(compile(go).map(|regex| regex.is_match(text)), expected, "{go} on {text:?}");
        }
    }
}
