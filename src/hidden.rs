//! Values that no output and no record may show: values of variables with names like secrets, and other private values.
//!
//! A run has one [`Hidden`]. [`crate::event::Events`] holds it and replaces these values in every event. All other output goes
//! through [`Hidden::text`].

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// The replacement for a value.
pub const PLACEHOLDER: &str = "(hidden)";

/// The minimum length of a hidden value, in bytes. Shorter values cannot be secrets, and occur in every text.
const SHORTEST: usize = 4;

/// A shorter value, in bytes, is replaced only if no letters and digits touch it.
const DISTINCT: usize = 8;

/// Words in names of variables with private values. BuildKit's lint warns of them too (`SecretsUsedInArgOrEnv`).
const WORDS: [&str; 13] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "pass",
    "passphrase",
    "password",
    "passwd",
    "pword",
    "secret",
    "secrets",
    "token",
];

/// The endings of words in such names: `DBPASSWORD`.
const ENDINGS: [&str; 5] = ["apikey", "password", "passwd", "secret", "token"];

/// Values of variables that switch a function on or off.
const SWITCHES: [&str; 9] = ["true", "false", "none", "null", "auto", "default", "disabled", "enabled", "required"];

/// Returns whether the name of a variable looks like that of a secret.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let words = || lower.split(|c: char| !c.is_ascii_alphanumeric());
    let is_secret = |word: &str| WORDS.contains(&word) || ENDINGS.iter().any(|ending| word.ends_with(ending));
    words().any(is_secret) && !words().any(|word| word == "public")
}

/// Returns whether the name is that of a proxy, whose URL may contain a password.
fn is_proxy_name(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with("_proxy")
}

/// Returns whether a variable has a value that is most likely a secret. hakobi hides more: `CACHE_KEY` and `AUTH_URL` are in doubt.
#[must_use]
pub fn is_plainly_secret(name: &str, value: &str) -> bool {
    const SURE: [&str; 5] = ["passwd", "password", "passphrase", "secret", "token"];
    let lower = name.to_ascii_lowercase();
    let is_number = value.trim().bytes().all(|byte| byte.is_ascii_digit());
    is_secret_name(name) && SURE.iter().any(|word| lower.ends_with(word)) && is_long_enough(value.trim()) && !is_number
}

/// Returns whether a value may be a secret.
fn is_long_enough(value: &str) -> bool {
    value.len() >= SHORTEST && !SWITCHES.contains(&value.to_ascii_lowercase().as_str())
}

/// Returns the value of a variable in the form that hakobi may record and show.
#[must_use]
pub fn shown<'a>(name: &str, value: &'a str) -> &'a str {
    if is_secret_name(name) || is_proxy_name(name) { PLACEHOLDER } else { value }
}

/// Returns whether a recorded value is a hidden one.
#[must_use]
pub fn is_hidden(value: &str) -> bool {
    value.starts_with(PLACEHOLDER)
}

/// The hidden values of a run. Clones share them.
#[derive(Clone, Default)]
pub struct Hidden(Arc<RwLock<Values>>);

#[derive(Default)]
struct Values {
    /// The hidden values, the longest first, each with its replacement.
    values: Vec<(String, String)>,
    /// The names of variables with hidden values, wherever hakobi finds the values.
    names: HashSet<String>,
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

impl Hidden {
    /// Hides a value, independent of its name.
    pub fn add(&self, value: &str, placeholder: &str) {
        let mut forms = vec![value.to_owned()];
        // JSON and the daemon's quoted messages contain this form.
        forms.extend(serde_json::to_string(value).ok().and_then(|quoted| Some(quoted.get(1..quoted.len() - 1)?.to_owned())));
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for form in forms.into_iter().filter(|form| !form.is_empty()) {
            if all.values.iter().all(|(value, _)| *value != form) {
                all.values.push((form, placeholder.to_owned()));
            }
        }
        all.values.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
    }

    /// Hides the value of a build argument or of a variable of the Dockerfile if its name looks like a secret's. Also hides every
    /// value that hakobi finds later for the variable ([`Hidden::add_found`]).
    pub fn add_variable(&self, name: &str, value: Option<&str>) {
        let has_password = |value: &str| value.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
        let is_proxy = is_proxy_name(name) && value.is_some_and(has_password);
        if is_secret_name(name) || is_proxy {
            self.0.write().unwrap_or_else(PoisonError::into_inner).names.insert(name.to_owned());
            self.add_found(name, value.unwrap_or_default());
        }
    }

    /// Hides a value that hakobi finds for a variable, if [`Hidden::add_variable`] has hidden the variable. Does not hide values of
    /// a base image: everyone can read them in that image.
    pub fn add_found(&self, name: &str, value: &str) {
        let is_known = self.0.read().unwrap_or_else(PoisonError::into_inner).names.contains(name);
        let value = value.trim();
        if is_known && is_long_enough(value) {
            self.add(value, PLACEHOLDER);
        }
    }

    /// Returns the text with placeholders for hidden values.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut out = Cow::Borrowed(text);
        for (value, placeholder) in &all.values {
            if let Some(replaced) = replaced(&out, value, placeholder) {
                out = Cow::Owned(replaced);
            }
        }
        out
    }

    /// Replaces hidden values in place.
    pub fn hide(&self, text: &mut String) {
        if let Cow::Owned(replaced) = self.text(text) {
            *text = replaced;
        }
    }

    /// Returns whether these bytes contain a hidden value, whatever is next to it.
    #[must_use]
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.values.iter().any(|(value, _)| bytes.windows(value.len()).any(|window| window == value.as_bytes()))
    }
}

/// Returns the text with all occurrences of a value replaced. Returns `None` if there are none.
fn replaced(text: &str, value: &str, placeholder: &str) -> Option<String> {
    let apart = |before: &str, after: &str| {
        value.len() >= DISTINCT
            || !(before.ends_with(|c: char| c.is_alphanumeric()) || after.starts_with(|c: char| c.is_alphanumeric()))
    };
    let (mut out, mut done) = (String::new(), 0);
    for (at, _) in text.match_indices(value) {
        let end = at + value.len();
        if apart(&text[..at], &text[end..]) {
            out.push_str(&text[done..at]);
            out.push_str(placeholder);
            done = end;
        }
    }
    (done > 0).then(|| out + &text[done..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_names_like_secrets_are_not_shown() {
        for name in ["NPM_TOKEN", "npm_token", "DB_PASSWORD", "DBPASSWORD", "API_KEY", "AWS_SECRET_ACCESS_KEY", "https_proxy"] {
            assert!(is_hidden(shown(name, "one")), "{name}");
        }
        for name in ["VERSION", "MONKEY", "KEYBOARD", "PUBLIC_KEY", "TOKENIZER", "PATH"] {
            assert_eq!(shown(name, "one"), "one", "{name}");
        }
    }

    #[test]
    fn values_are_replaced_wherever_they_stand() {
        let hidden = Hidden::default();
        for (name, value) in
            [("API_TOKEN", "canary-4711"), ("DB_PASS", "abc1"), ("AUTH", "true"), ("KEY", "1"), ("VERSION", "canary")]
        {
            hidden.add_variable(name, Some(value));
        }
        assert_eq!(hidden.text("[1/2] COPY canary-4711 /xcanary-4711x true"), "[1/2] COPY (hidden) /x(hidden)x true");
        assert_eq!(hidden.text("RUN abc1 abc12 'abc1'"), "RUN (hidden) abc12 '(hidden)'", "a short one stands apart");
        assert!(hidden.is_in(b"\0\x0acanary-4711\x12") && !hidden.is_in(b"canary-471"));
        assert!(matches!(hidden.text("canary"), Cow::Borrowed(_)));
    }

    #[test]
    fn only_declared_variables_have_their_found_values_hidden() {
        let hidden = Hidden::default();
        hidden.add_variable("API_TOKEN", None);
        hidden.add_found("API_TOKEN", "put-together");
        hidden.add_found("GPG_KEY", "A035C8C19219BA82");
        assert_eq!(hidden.text("put-together A035C8C19219BA82"), "(hidden) A035C8C19219BA82");
    }

    #[test]
    fn quoted_values_are_found() {
        let hidden = Hidden::default();
        hidden.add_variable("API_TOKEN", Some("say \"friend\""));
        assert_eq!(hidden.text(r#"{"a":"say \"friend\""} say "friend""#), r#"{"a":"(hidden)"} (hidden)"#);
    }

    #[test]
    fn proxies_are_hidden_if_they_hold_a_password() {
        let hidden = Hidden::default();
        hidden.add_variable("HTTP_PROXY", Some("http://proxy:3128"));
        hidden.add_variable("https_proxy", Some("http://me:word@proxy:3128"));
        assert_eq!(hidden.text("http://proxy:3128 http://me:word@proxy:3128"), "http://proxy:3128 (hidden)");
    }
}
