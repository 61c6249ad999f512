//! Parses `--cache-from` and `--cache-to`: bare references, or BuildKit's CSV (buildx `buildflags.ParseCacheEntry`).

use std::collections::BTreeMap;

use super::environment::Environment;
use super::words;
use crate::error::{Error, Result};
use crate::settings::{CacheEntry, CacheFrom};

/// Parses the values of `--cache-from`.
pub fn cache_from(texts: &[String], environment: &Environment) -> Result<Vec<CacheFrom>> {
    let mut out = Vec::new();
    for text in texts {
        match bare(text)? {
            Some(references) => {
                for reference in references {
                    out.push(CacheFrom::Latest(words::reference("cache-from", &reference)?));
                }
            }
            None => out.extend(entry("cache-from", text, environment)?.map(CacheFrom::Entry)),
        }
    }
    Ok(out)
}

/// Parses the values of `--cache-to`, and the build argument BUILDKIT_INLINE_CACHE.
pub fn cache_to(texts: &[String], build_args: &BTreeMap<String, String>, environment: &Environment) -> Result<Vec<CacheEntry>> {
    let mut out = Vec::new();
    for text in texts {
        match bare(text)? {
            Some(references) => {
                for reference in references {
                    let reference = words::reference("cache-to", &reference)?;
                    let attributes = BTreeMap::from([("ref".to_owned(), reference.to_string())]);
                    out.push(CacheEntry { kind: "registry".to_owned(), attributes });
                }
            }
            None => out.extend(entry("cache-to", text, environment)?),
        }
    }
    let inline = build_args.get("BUILDKIT_INLINE_CACHE").and_then(|value| words::boolean(value)).unwrap_or(false);
    if inline && !out.iter().any(|entry| entry.kind == "inline") {
        out.push(CacheEntry { kind: "inline".to_owned(), attributes: BTreeMap::new() });
    }
    Ok(out)
}

/// Returns the references of a value without keys, separated by commas. Returns `None` if it is a CSV entry with keys.
fn bare(text: &str) -> Result<Option<Vec<String>>> {
    if text.contains('=') { Ok(None) } else { words::fields(text).map(Some) }
}

/// Parses a CSV entry. Returns `None` if it names GitHub's cache, and this is no run of GitHub Actions (buildx `isActive`).
fn entry(flag: &str, text: &str, environment: &Environment) -> Result<Option<CacheEntry>> {
    let mut attributes: BTreeMap<String, String> = words::pairs(flag, text)?.into_iter().collect();
    let Some(kind) = attributes.remove("type").filter(|kind| !kind.is_empty()) else {
        return Err(Error::usage(format!("invalid --{flag} {text}: the type is missing"))
            .hint("use type=registry,ref=HOST/NAME:TAG or HOST/NAME:TAG"));
    };
    if kind == "registry" {
        match attributes.get("ref") {
            Some(reference) => drop(words::reference(flag, reference)?),
            None => {
                return Err(Error::usage(format!("invalid --{flag} {text}: the ref is missing"))
                    .hint("use type=registry,ref=HOST/NAME:TAG"));
            }
        }
    }
    if kind == "gha" && !github(&mut attributes, environment) {
        return Ok(None);
    }
    Ok(Some(CacheEntry { kind, attributes }))
}

/// Adds the values from the variables of GitHub Actions (buildx `addGithubToken`). Returns whether they are enough to use its cache.
fn github(attributes: &mut BTreeMap<String, String>, environment: &Environment) -> bool {
    let second = match attributes.get("version") {
        Some(version) => version == "2",
        None => environment.get("ACTIONS_CACHE_SERVICE_V2").and_then(words::boolean).unwrap_or(false),
    };
    let mut put = |key: &str, variables: &[&str]| {
        if !attributes.contains_key(key)
            && let Some(value) = variables.iter().find_map(|name| environment.get(name))
        {
            attributes.insert(key.to_owned(), value.to_owned());
        }
    };
    put("token", &["ACTIONS_RUNTIME_TOKEN"]);
    if second {
        put("url_v2", &["ACTIONS_RESULTS_URL"]);
    }
    put("url", &["ACTIONS_CACHE_URL", "ACTIONS_RESULTS_URL"]);
    let has = |key: &str| attributes.get(key).is_some_and(|value| !value.is_empty());
    has("token") && (has("url") || has("url_v2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry_of(kind: &str, attributes: &[(&str, &str)]) -> CacheEntry {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        CacheEntry { kind: kind.to_owned(), attributes }
    }

    fn from(text: &str) -> Result<Vec<CacheFrom>> {
        cache_from(&[text.to_owned()], &Environment::default())
    }

    #[test]
    fn bare_references_and_csv() {
        let latest = |text: &str| CacheFrom::Latest(text.parse().expect("a reference"));
        assert_eq!(from("user/app:cache").ok(), Some(vec![latest("user/app:cache")]));
        assert_eq!(from("a,b:1").ok(), Some(vec![latest("a:latest"), latest("b:1")]));
        assert_eq!(
            from("type=registry,ref=h.x/a:b").ok(),
            Some(vec![CacheFrom::Entry(entry_of("registry", &[("ref", "h.x/a:b")]))])
        );
        assert_eq!(from("type=local,\"src=a,b\"").ok(), Some(vec![CacheFrom::Entry(entry_of("local", &[("src", "a,b")]))]));
        for (text, word) in [
            ("ref=a", "the type is missing"),
            ("type=registry", "the ref is missing"),
            ("App", "lower case"),
            ("type=local,x", "`x`"),
        ] {
            assert!(from(text).is_err_and(|error| error.to_string().contains(word)), "{text}");
        }
    }

    #[test]
    fn caches_to_write() {
        let to = |texts: &[&str], args: &[(&str, &str)]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let args = args.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            cache_to(&texts, &args, &Environment::default()).ok()
        };
        assert_eq!(to(&["h.x/a"], &[]), Some(vec![entry_of("registry", &[("ref", "h.x/a:latest")])]));
        assert_eq!(to(&["type=inline"], &[("BUILDKIT_INLINE_CACHE", "1")]), Some(vec![entry_of("inline", &[])]));
        assert_eq!(to(&[], &[("BUILDKIT_INLINE_CACHE", "1")]), Some(vec![entry_of("inline", &[])]));
        assert_eq!(to(&[], &[("BUILDKIT_INLINE_CACHE", "0")]), Some(vec![]));
    }

    #[test]
    fn githubs_cache_needs_github() {
        assert_eq!(from("type=gha").ok(), Some(vec![]));
        let variables = BTreeMap::from([
            ("ACTIONS_RUNTIME_TOKEN".to_owned(), "t".to_owned()),
            ("ACTIONS_RESULTS_URL".to_owned(), "u".to_owned()),
            ("ACTIONS_CACHE_SERVICE_V2".to_owned(), "True".to_owned()),
        ]);
        let environment = Environment { variables, ..Environment::default() };
        let found = cache_from(&["type=gha,scope=x".to_owned()], &environment).ok();
        let expected = entry_of("gha", &[("scope", "x"), ("token", "t"), ("url", "u"), ("url_v2", "u")]);
        assert_eq!(found, Some(vec![CacheFrom::Entry(expected)]));
    }
}
