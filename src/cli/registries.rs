//! Resolves the settings of registries and of pushes.

use super::environment::Environment;
use super::given::Given;
use super::words;
use crate::domain::{ImageRef, RegistryHost};
use crate::error::{Error, Result};
use crate::settings::{Compression, CreateRepository, IfTagExists, PushSettings, RegistrySettings};

/// Parses the host of a registry.
///
/// # Errors
/// If the text cannot be the host of a reference.
pub fn host(what: &str, text: &str) -> Result<RegistryHost> {
    // `docker login` also accepts a URL, and users often pass one.
    let bare = text.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let host = RegistryHost::new(bare);
    // The text is a host if a reference with it has that host.
    match format!("{bare}/x").parse::<ImageRef>() {
        Ok(reference) if reference.repository.host == host && !bare.contains('/') => Ok(host),
        _ => Err(Error::usage(format!("invalid registry `{text}` for {what}"))
            .hint("use HOST or HOST:PORT, for example registry.example.com:5000")),
    }
}

/// Resolves the access to registries.
pub fn registries(given: Given<'_>, environment: &Environment) -> Result<RegistrySettings> {
    let mut settings = RegistrySettings { docker_config: environment.docker_config(), ..RegistrySettings::default() };
    for text in given.list("insecure-registry") {
        settings.insecure.push(host("--insecure-registry", &text)?);
    }
    for text in given.list("registry-role") {
        let (name, role) = pair("registry-role", "HOST=ARN", &text)?;
        if !role.starts_with("arn:") || !role.contains(":role/") {
            return Err(Error::usage(format!("invalid --registry-role {text}: `{role}` is not the ARN of a role"))
                .hint("use an ARN like arn:aws:iam::123456789012:role/NAME"));
        }
        settings.roles.insert(host("--registry-role", name)?, role.to_owned());
    }
    for text in given.list("registry-mirror") {
        let (name, url) = pair("registry-mirror", "HOST=URL", &text)?;
        let address = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        if address.is_none_or(str::is_empty) {
            return Err(Error::usage(format!("invalid --registry-mirror {text}: `{url}` is not an http(s) URL"))
                .hint("use for example docker.io=https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/docker-hub"));
        }
        settings.mirrors.insert(host("--registry-mirror", name)?, url.trim_end_matches('/').to_owned());
    }
    Ok(settings)
}

fn pair<'a>(flag: &str, form: &str, text: &'a str) -> Result<(&'a str, &'a str)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name, value)),
        _ => Err(Error::usage(format!("invalid --{flag} `{text}`: expected {form}"))),
    }
}

/// Resolves the options of a push.
pub fn push_settings(given: Given<'_>, environment: &Environment) -> Result<PushSettings> {
    Ok(PushSettings {
        if_tag_exists: match given.text("if-tag-exists").as_deref() {
            Some("fail") => IfTagExists::Fail,
            Some("skip") => IfTagExists::Skip,
            _ => IfTagExists::Overwrite,
        },
        create_repository: match given.text("create-repository") {
            Some(options) => create_repository(&options, environment)?,
            None => None,
        },
        compression: given.text("compression").map(|text| compression(&text)).transpose()?.unwrap_or_default(),
    })
}

fn create_repository(options: &str, environment: &Environment) -> Result<Option<CreateRepository>> {
    let mut out = CreateRepository::default();
    match words::boolean(options) {
        Some(true) => return Ok(Some(out)),
        Some(false) => return Ok(None),
        None => {}
    }
    let wrong = |what: String| {
        Error::usage(format!("invalid --create-repository={options}: {what}"))
            .hint("use the options scan, immutable, kms=KEY, tag=NAME=VALUE and lifecycle=FILE")
    };
    for field in words::fields(options)? {
        match field.split_once('=') {
            None if field == "scan" => out.scan_on_push = true,
            None if field == "immutable" => out.immutable_tags = true,
            Some(("scan", value)) => {
                out.scan_on_push = words::boolean(value).ok_or_else(|| wrong(format!("`{field}` must be true or false")))?
            }
            Some(("immutable", value)) => {
                out.immutable_tags = words::boolean(value).ok_or_else(|| wrong(format!("`{field}` must be true or false")))?
            }
            Some(("kms", key)) if !key.is_empty() => out.kms_key = Some(key.to_owned()),
            Some(("tag", tag)) => match tag.split_once('=') {
                Some((name, value)) if !name.is_empty() => drop(out.tags.insert(name.to_owned(), value.to_owned())),
                _ => return Err(wrong(format!("expected tag=NAME=VALUE, not `{field}`"))),
            },
            Some(("lifecycle", file)) => {
                let path = environment.resolve(file);
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| wrong(format!("failed to read the lifecycle policy {}", path.display())).because(&error))?;
                serde_json::from_str::<serde::de::IgnoredAny>(&text)
                    .map_err(|error| wrong(format!("the lifecycle policy {} is not JSON", path.display())).because(&error))?;
                out.lifecycle_policy = Some(text);
            }
            _ => return Err(wrong(format!("unknown option `{field}`"))),
        }
    }
    Ok(Some(out))
}

/// Parses `gzip` or `zstd`, with an optional level after a colon.
pub fn compression(text: &str) -> Result<Compression> {
    let (kind, level) = match text.split_once(':') {
        Some((kind, level)) => (kind, Some(level)),
        None => (text, None),
    };
    let number = |levels: std::ops::RangeInclusive<i32>, default: i32| match level {
        None => Some(default),
        Some(level) => level.parse().ok().filter(|level| levels.contains(level)),
    };
    let found = match kind {
        "gzip" => number(1..=9, 6).map(|level| Compression::Gzip(level.unsigned_abs())),
        "zstd" => number(1..=22, 3).map(Compression::Zstd),
        _ => None,
    };
    found.ok_or_else(|| {
        Error::usage(format!("invalid --compression `{text}`"))
            .hint("use gzip or zstd, optionally with a level: gzip:1 to gzip:9, zstd:1 to zstd:22")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_what_references_have() {
        for (text, expected) in [
            ("docker.io", Some("docker.io")),
            ("index.docker.io", Some("docker.io")),
            ("https://r.example.com/", Some("r.example.com")),
            ("localhost", Some("localhost")),
            ("r:5000", Some("r:5000")),
            ("registry", None),
            ("a.b/c", None),
            ("", None),
            ("a b.c", None),
        ] {
            assert_eq!(host("HOST", text).ok().as_ref().map(RegistryHost::as_str), expected, "{text}");
        }
    }

    #[test]
    fn compressions_have_levels() {
        for (text, expected) in [
            ("gzip", Some(Compression::Gzip(6))),
            ("gzip:9", Some(Compression::Gzip(9))),
            ("zstd", Some(Compression::Zstd(3))),
            ("zstd:22", Some(Compression::Zstd(22))),
            ("gzip:10", None),
            ("zstd:0", None),
            ("gzip:", None),
            ("xz", None),
        ] {
            assert_eq!(compression(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_repository_is_made_with_options() {
        let folder = tempfile::tempdir().expect("a directory");
        std::fs::write(folder.path().join("policy.json"), "{\"rules\":[]}").expect("written");
        std::fs::write(folder.path().join("bad.json"), "{").expect("written");
        let environment = Environment { current_dir: folder.path().to_owned(), ..Environment::default() };
        let of = |options: &str| create_repository(options, &environment);
        assert_eq!(of("true").ok().flatten(), Some(CreateRepository::default()));
        assert_eq!(of("false").ok(), Some(None));
        let all =
            of("scan,immutable,kms=arn:aws:kms:x,tag=team=a=b,tag=x=,lifecycle=policy.json").ok().flatten().expect("options");
        assert!(all.scan_on_push && all.immutable_tags);
        assert_eq!(all.kms_key.as_deref(), Some("arn:aws:kms:x"));
        assert_eq!(all.tags.get("team").map(String::as_str), Some("a=b"));
        assert_eq!(all.lifecycle_policy.as_deref(), Some("{\"rules\":[]}"));
        for (options, word) in
            [("scam", "`scam`"), ("tag=x", "tag=NAME=VALUE"), ("lifecycle=none", "none"), ("lifecycle=bad.json", "not JSON")]
        {
            assert!(of(options).is_err_and(|error| error.to_string().contains(word)), "{options}");
        }
    }
}
