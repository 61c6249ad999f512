//! `WWW-Authenticate` (RFC 9110, 11.6.1), as registries use it.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// The login that a registry requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::registry) enum Challenge {
    /// A user and a password with every request.
    Basic,
    /// A token from a token service (distribution spec, "Token Authentication").
    Bearer {
        /// The token service.
        realm: String,
        /// The service's name of the registry. It may be empty.
        service: String,
    },
}

impl Challenge {
    /// Reads the challenge of an answer. Prefers Bearer if the registry offers both. Returns `None` if there is none.
    pub(in crate::registry) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(text) = value.to_str() else { continue };
            for (scheme, parameters) in challenges(text) {
                let parameter = |name: &str| {
                    parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
                };
                if scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = parameter("realm")
                {
                    return Some(Self::Bearer { realm, service: parameter("service").unwrap_or_default() });
                }
                if scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
            }
        }
        basic
    }
}

type Parameters = Vec<(String, String)>;

/// Parses `Bearer realm="…",service="…", Basic realm=x` into the schemes with their parameters.
fn challenges(text: &str) -> Vec<(String, Parameters)> {
    let mut out: Vec<(String, Parameters)> = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let end = rest.find([' ', ',', '=', '\t']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after_word = after.trim_start_matches([' ', '\t']);
        if let Some(value) = after_word.strip_prefix('=') {
            let (value, after) = value_of(value.trim_start_matches([' ', '\t']));
            if let Some((_, parameters)) = out.last_mut() {
                parameters.push((word.to_owned(), value));
            }
            rest = after;
        } else {
            if !word.is_empty() {
                out.push((word.to_owned(), Vec::new()));
            }
            rest = after_word;
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    out
}

fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, character) in quoted.char_indices() {
        match character {
            _ if escaped => {
                value.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_headers(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().expect("a value"));
        }
        Challenge::from_headers(&headers)
    }

    fn bearer(realm: &str, service: &str) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.into(), service: service.into() })
    }

    #[test]
    fn challenges_of_real_registries_are_read() {
        assert_eq!(from_headers(&[r#"Basic realm="Registry""#]), Some(Challenge::Basic));
        assert_eq!(
            from_headers(&[
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#
            ]),
            bearer("https://auth.docker.io/token", "registry.docker.io")
        );
        assert_eq!(from_headers(&[r#"bearer service=s , Realm="https://x/a\"b""#]), bearer("https://x/a\"b", "s"));
        assert_eq!(from_headers(&[r#"Basic realm="r", Bearer realm="https://x""#]), bearer("https://x", ""));
        assert_eq!(from_headers(&["Negotiate", "Basic realm=r"]), Some(Challenge::Basic));
        assert_eq!(from_headers(&["Bearer", r#"realm="unclosed"#, "", "====", "\"\"\""]), None);
    }
}
