//! Values that are not to be read by whoever reads a log or a store: of variables that are called like secrets.

use crate::domain::Digest;

/// What a hidden value begins with.
const HIDDEN: &str = "(hidden) ";

/// Words of names whose values are nobody's business; BuildKit's lint warns of them too (`SecretsUsedInArgOrEnv`).
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

/// A variable's value as it is remembered and told: itself, or what tells it from others, where the name is one of a secret.
pub(super) fn shown(name: &str, value: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let mut words = lower.split(|c: char| !c.is_ascii_alphanumeric());
    // A proxy's URL may hold a password.
    let is_secret = words.clone().any(|word| WORDS.contains(&word)) && !words.any(|word| word == "public");
    if is_secret || lower.ends_with("_proxy") {
        format!("{HIDDEN}{}", &Digest::of(format!("{name}\0{value}").as_bytes()).hex()[..8])
    } else {
        value.to_owned()
    }
}

/// Whether a value is one that is not told.
pub(super) fn is_hidden(value: &str) -> bool {
    value.starts_with(HIDDEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_apart_and_not_told() {
        for name in ["NPM_TOKEN", "npm_token", "DB_PASSWORD", "API_KEY", "AWS_SECRET_ACCESS_KEY", "https_proxy"] {
            let (one, other) = (shown(name, "one"), shown(name, "other"));
            assert!(is_hidden(&one) && one != other && !one.contains("one"), "{name}: {one}");
        }
        for name in ["VERSION", "MONKEY", "KEYBOARD", "PUBLIC_KEY", "TOKENIZER", "PATH"] {
            assert_eq!(shown(name, "one"), "one", "{name}");
        }
    }
}
