//! Resolves `--cache` and its related flags: the location and the scopes of the cache.

use std::path::Path;

use super::environment::Environment;
use super::given::Given;
use super::words;
use crate::ci::Ci;
use crate::domain::ImageRef;
use crate::error::{Error, Result};
use crate::settings::{CacheFrom, CacheMode, CacheSettings, RegistryCacheSettings, S3Settings, StoreLocation};

/// Returns the cache of a build. Returns `None` if there is none, or if only caches of BuildKit are named. `--cache-from IMAGE`
/// names the image's repository, and the image's tag is the scope. `pushed` are the tags that the build moves.
///
/// # Errors
/// If a value is invalid.
pub fn store(
    given: Given<'_>,
    environment: &Environment,
    cache_from: &[CacheFrom],
    pushed: &[ImageRef],
) -> Result<Option<CacheSettings>> {
    let images: Vec<&ImageRef> = cache_from
        .iter()
        .filter_map(|from| match from {
            CacheFrom::Latest(image) => Some(image),
            CacheFrom::Entry(_) => None,
        })
        .collect();
    match images.iter().find(|image| pushed.contains(image)).or(images.first()) {
        Some(image) if given.text("cache").is_none() => beside(given, image, &images, pushed),
        _ => named(given, environment),
    }
}

/// Returns the cache beside an image. A build that does not push this tag only reads: a branch must not replace what main saved.
fn beside(given: Given<'_>, image: &ImageRef, images: &[&ImageRef], pushed: &[ImageRef]) -> Result<Option<CacheSettings>> {
    let elsewhere = given.text("cache-repository").map(|text| words::reference("cache-repository", &text)).transpose()?;
    let mode = match given.text("cache-mode").as_deref() {
        Some("off") => return Ok(None),
        Some("read-only") => CacheMode::ReadOnly,
        Some("read-write") => CacheMode::ReadWrite,
        // A cache elsewhere is for repositories whose tags do not move, so any push counts.
        _ if pushed.contains(image) || elsewhere.is_some() && !pushed.is_empty() => CacheMode::ReadWrite,
        _ => CacheMode::ReadOnly,
    };
    let repository = elsewhere.as_ref().map_or(&image.repository, |elsewhere| &elsewhere.repository).clone();
    let scope_of = |image: &ImageRef| image.tag.clone().unwrap_or_else(|| "latest".to_owned());
    let scope = given.text("cache-scope").unwrap_or_else(|| scope_of(image));
    let mut fallbacks = given.list("cache-fallback");
    if fallbacks.is_empty() {
        let same = images.iter().filter(|other| other.repository == image.repository);
        fallbacks = same.map(|other| scope_of(other)).filter(|other| *other != scope).collect();
    }
    let shown = format!("oci://{repository}");
    let location = StoreLocation::Registry(RegistryCacheSettings { repository, prefix: String::new() });
    let max_size = max_size(given, &location, false)?;
    Ok(Some(CacheSettings { location, shown, scope, fallbacks, mode, required: given.switch("cache-required"), max_size }))
}

/// The size of the user's cache directory, in bytes, unless the user says otherwise.
const MOST: u64 = 5 << 30;

/// Returns the size above which a run prunes a directory, in bytes.
fn max_size(given: Given<'_>, location: &StoreLocation, is_default: bool) -> Result<Option<u64>> {
    let is_directory = matches!(location, StoreLocation::Directory(_));
    let Some(text) = given.text("cache-max-size") else { return Ok(Some(MOST).filter(|_| is_default && is_directory)) };
    if !is_directory {
        return Err(Error::usage("--cache-max-size is only for a cache in a directory")
            .hint("use `hakobi cache prune`, or the rules in docs/costs.md"));
    }
    words::bytes("cache-max-size", &text).map(Some)
}

/// Returns the cache that `--cache` names, or else the user's. Returns `None` if there is none.
fn named(given: Given<'_>, environment: &Environment) -> Result<Option<CacheSettings>> {
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
    let max_size = max_size(given, &location, given.text("cache").is_none())?;
    Ok(Some(CacheSettings { location, shown, scope, fallbacks, mode, required: given.switch("cache-required"), max_size }))
}

/// Parses a location: `s3://BUCKET/PREFIX?…`, `oci://HOST/REPOSITORY[:PREFIX]`, `file:///PATH`, or a path.
pub fn location(text: &str, environment: &Environment) -> Result<StoreLocation> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return directory(environment.resolve(text), text);
    };
    match scheme {
        "s3" => s3(text, rest).map(StoreLocation::S3),
        "oci" => registry(text, rest).map(StoreLocation::Registry),
        "file" if rest.starts_with('/') => directory(Path::new(rest).to_owned(), text),
        _ => Err(Error::usage(format!("invalid --cache {text}: unknown scheme"))
            .hint("use s3://BUCKET/PREFIX, oci://HOST/REPOSITORY or a directory")),
    }
}

fn registry(text: &str, rest: &str) -> Result<RegistryCacheSettings> {
    let wrong = |why: &str| {
        Error::usage(format!("invalid --cache {text}: {why}")).hint("use oci://HOST/REPOSITORY or oci://HOST/REPOSITORY:PREFIX")
    };
    let reference: ImageRef = rest.parse().map_err(|error: crate::domain::InvalidReference| wrong(&error.to_string()))?;
    if reference.digest.is_some() {
        return Err(wrong("it has a digest"));
    }
    Ok(RegistryCacheSettings { repository: reference.repository, prefix: reference.tag.unwrap_or_default() })
}

fn directory(path: std::path::PathBuf, text: &str) -> Result<StoreLocation> {
    if path.exists() && !path.is_dir() {
        return Err(Error::usage(format!("invalid --cache {text}: not a directory"))
            .hint("use s3://BUCKET/PREFIX, oci://HOST/REPOSITORY or a directory"));
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
        let registry = |repository: &str, prefix: &str| {
            let repository = repository.parse::<ImageRef>().expect("a reference").repository;
            Some(StoreLocation::Registry(RegistryCacheSettings { repository, prefix: prefix.into() }))
        };
        assert_eq!(of("oci://r.example:5000/team/cache").ok(), registry("r.example:5000/team/cache", ""));
        assert_eq!(of("oci://team/cache:web").ok(), registry("docker.io/team/cache", "web"));
        assert_eq!(of("cache").ok(), Some(StoreLocation::Directory("/work/cache".into())));
        assert_eq!(of("file:///c").ok(), Some(StoreLocation::Directory("/c".into())));
        for (text, word) in [
            ("s3://", "the bucket is missing"),
            ("s3://b/../c", "invalid prefix"),
            ("s3://b?endpoint=http://x", "not an option of --cache"),
            ("s3://b?path-style=x", "must be true or false"),
            ("s3://b?acl=x", "unknown option"),
            ("gs://b", "unknown scheme"),
            ("oci://", "invalid --cache oci://"),
            ("oci://r.example/Team", "invalid --cache oci://r.example/Team"),
            ("/dev/null", "not a directory"),
        ] {
            assert!(of(text).is_err_and(|error| error.to_string().contains(word)), "{text}");
        }
    }
}
