//! Resolves `--cache` and its related flags: the location and the scopes of the cache.

use std::path::Path;

use super::environment::Environment;
use super::given::Given;
use super::words;
use crate::ci::Ci;
use crate::error::{Error, Result};
use crate::settings::{CacheMode, CacheSettings, S3Settings, StoreLocation};

/// Returns the settings of the cache. Returns `None` if it is off, has no location, or only BuildKit's own caches are named.
pub fn store(given: Given<'_>, environment: &Environment) -> Result<Option<CacheSettings>> {
    let mode = match given.text("cache-mode").as_deref() {
        Some("off") => return Ok(None),
        Some("read-only") => CacheMode::ReadOnly,
        _ => CacheMode::ReadWrite,
    };
    let own = !given.list("cache-from").is_empty() || !given.list("cache-to").is_empty();
    let (shown, location) = match given.text("cache") {
        Some(text) => (text.clone(), location(&text, environment)?),
        None if own => return Ok(None),
        None => match environment.user_cache() {
            Some(directory) => {
                let directory = directory.join("hakobi");
                (directory.display().to_string(), StoreLocation::Directory(directory))
            }
            None => return Ok(None),
        },
    };
    let ci = Ci::detect(|name| environment.get(name).map(str::to_owned)).scope;
    let scope = given.text("cache-scope");
    let fallbacks = given.list("cache-fallback");
    let fallbacks = match (fallbacks.is_empty(), &scope) {
        (false, _) => fallbacks,
        // If the user names a scope, hakobi reads other scopes only if `--cache-fallback` names them.
        (true, Some(_)) => Vec::new(),
        (true, None) => ci.fallbacks,
    };
    let scope = scope.unwrap_or(ci.name);
    Ok(Some(CacheSettings { location, shown, scope, fallbacks, mode, required: given.switch("cache-required") }))
}

/// Parses a location: `s3://BUCKET/PREFIX?…`, `file:///PATH`, or a path.
pub fn location(text: &str, environment: &Environment) -> Result<StoreLocation> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return directory(environment.resolve(text), text);
    };
    match scheme {
        "s3" => s3(text, rest).map(StoreLocation::S3),
        "file" if rest.starts_with('/') => directory(Path::new(rest).to_owned(), text),
        _ => Err(Error::usage(format!("invalid --cache {text}: unknown scheme"))
            .hint("use s3://BUCKET/PREFIX or a directory; name an image in a registry with --cache-from")),
    }
}

fn directory(path: std::path::PathBuf, text: &str) -> Result<StoreLocation> {
    if path.exists() && !path.is_dir() {
        return Err(
            Error::usage(format!("invalid --cache {text}: not a directory")).hint("use s3://BUCKET/PREFIX or a directory")
        );
    }
    Ok(StoreLocation::Directory(path))
}

fn s3(text: &str, rest: &str) -> Result<S3Settings> {
    let wrong =
        |what: String| Error::usage(format!("invalid --cache {text}: {what}")).hint("use s3://BUCKET/PREFIX?region=…&kms-key=…");
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    if bucket.is_empty() {
        return Err(wrong("the bucket is missing".to_owned()));
    }
    let prefix = prefix.trim_matches('/');
    if prefix.split('/').any(|part| matches!(part, "." | "..")) || prefix.len() > 400 {
        return Err(wrong(format!("invalid prefix `{prefix}`")));
    }
    let mut out = S3Settings { bucket: bucket.to_owned(), prefix: prefix.to_owned(), ..S3Settings::default() };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
        match key {
            "region" if !value.is_empty() => out.region = Some(value),
            "kms-key" => out.kms_key = Some(value),
            "storage-class" if !value.is_empty() => out.storage_class = Some(value.to_ascii_uppercase()),
            "path-style" => {
                let value = words::boolean(&value).ok_or_else(|| wrong(format!("`{pair}` must be true or false")))?;
                out.path_style = Some(value);
            }
            "endpoint" => {
                return Err(wrong("the endpoint is not an option of --cache".to_owned())
                    .hint("set AWS_ENDPOINT_URL_S3, or endpoint_url in the profile"));
            }
            _ => return Err(wrong(format!("unknown option `{pair}`; known are region, kms-key, storage-class and path-style"))),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_directories() {
        let environment = Environment { current_dir: "/work".into(), ..Environment::default() };
        let of = |text: &str| location(text, &environment);
        let s3 = |settings: S3Settings| Some(StoreLocation::S3(settings));
        let bucket = S3Settings { bucket: "b".into(), ..S3Settings::default() };
        assert_eq!(of("s3://b").ok(), s3(bucket.clone()));
        assert_eq!(of("s3://b/a/c/").ok(), s3(S3Settings { prefix: "a/c".into(), ..bucket.clone() }));
        let options = S3Settings {
            region: Some("eu-west-1".into()),
            kms_key: Some("arn:aws:kms:x:1:key/a".into()),
            storage_class: Some("ONEZONE_IA".into()),
            path_style: Some(true),
            ..bucket
        };
        let text = "s3://b?region=eu-west-1&kms-key=arn%3Aaws:kms:x:1:key/a&storage-class=onezone_ia&path-style=true";
        assert_eq!(of(text).ok(), s3(options));
        assert_eq!(of("cache").ok(), Some(StoreLocation::Directory("/work/cache".into())));
        assert_eq!(of("file:///c").ok(), Some(StoreLocation::Directory("/c".into())));
        for (text, word) in [
            ("s3://", "the bucket is missing"),
            ("s3://b/../c", "invalid prefix"),
            ("s3://b?endpoint=http://x", "not an option of --cache"),
            ("s3://b?path-style=x", "must be true or false"),
            ("s3://b?acl=x", "unknown option"),
            ("gs://b", "unknown scheme"),
            ("/dev/null", "not a directory"),
        ] {
            assert!(of(text).is_err_and(|error| error.to_string().contains(word)), "{text}");
        }
    }
}
