//! Finds the build context, the Dockerfile and named contexts, like buildx `loadInputs`. Missing files are errors here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::words;
use crate::domain::{ImageRef, RegistryHost};
use crate::error::{Error, Result};
use crate::settings::{ContextSource, DockerfileSource, NamedContext};

/// Resolves CONTEXT.
pub fn context(text: Option<&str>, environment: &Environment) -> Result<ContextSource> {
    let text = text.unwrap_or_default();
    if text.is_empty() {
        return Err(Error::usage("`hakobi build` requires a build context")
            .hint("name a directory (`.` is the current one), a Git or http(s) URL, or `-` for standard input"));
    }
    if text == "-" {
        return Ok(ContextSource::Stdin);
    }
    let path = environment.resolve(text);
    // The directory comes first, because `github.com/a/b` may be one.
    if path.is_dir() {
        return match std::fs::read_dir(&path) {
            Ok(_) => Ok(ContextSource::Directory(path)),
            Err(error) => Err(Error::usage(format!("failed to read the build context `{text}`")).because(&error)),
        };
    }
    if is_remote(text) {
        return Ok(ContextSource::Remote(text.to_owned()));
    }
    match std::fs::metadata(&path) {
        Ok(_) => Err(Error::usage(format!("the build context `{text}` is a file, not a directory")).hint(if is_archive(text) {
            format!("to use an archive, pass it on standard input: hakobi build - < {text}")
        } else {
            format!("to use a Dockerfile, name it with -f: hakobi build -f {text} .")
        })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let error = Error::usage(format!("the build context `{text}` does not exist"));
            Err(if text.contains("://") {
                error.hint("use a directory or a URL with git://, ssh:// or http(s)://")
            } else {
                error
            })
        }
        Err(error) => Err(Error::usage(format!("failed to read the build context `{text}`")).because(&error)),
    }
}

fn is_archive(text: &str) -> bool {
    [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"].iter().any(|end| text.ends_with(end))
}

fn is_http(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

/// Returns whether the daemon fetches this context: http(s), or a git repository (buildx `urlutil.IsRemoteURL`).
pub fn is_remote(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    is_http(text) || ["git://", "ssh://"].iter().any(|s| lower.starts_with(s)) || text.starts_with("github.com/") || is_scp(text)
}

/// Returns whether this is a git repository over ssh, which needs an agent.
pub fn is_git_over_ssh(text: &str) -> bool {
    text.to_ascii_lowercase().starts_with("ssh://") || is_scp(text)
}

/// Returns whether this has the form `git@host:path` (BuildKit `sshutil.gitSSHRegex`).
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let fits = |text: &str, more: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    fits(user, "-_") && fits(host, "-.")
}

/// Resolves `-f` for this context.
pub fn dockerfile(text: Option<&str>, context: &ContextSource, environment: &Environment) -> Result<DockerfileSource> {
    match (text, context) {
        (Some("-"), ContextSource::Stdin) => {
            Err(Error::usage("standard input cannot be both the build context and the Dockerfile"))
        }
        (Some("-"), _) => Ok(DockerfileSource::Stdin),
        (Some(url), _) if is_http(url) => Ok(DockerfileSource::Remote(url.to_owned())),
        (None, ContextSource::Directory(folder)) => in_context(folder),
        (None, _) => Ok(DockerfileSource::Default),
        (Some(text), ContextSource::Directory(folder)) => local(text, Some(folder), environment),
        (Some(text), ContextSource::Remote(_)) if Path::new(text).is_absolute() => local(text, None, environment),
        // The path is inside a context that hakobi has not read yet.
        (Some(text), _) => Ok(DockerfileSource::Path(PathBuf::from(text))),
    }
}

fn in_context(folder: &Path) -> Result<DockerfileSource> {
    let path = folder.join("Dockerfile");
    match lower_case_of(&path) {
        Some(lower) => Ok(DockerfileSource::Path(lower)),
        None if path.is_file() => Ok(DockerfileSource::Default),
        None => Err(unusable(&path)),
    }
}

fn local(text: &str, context: Option<&Path>, environment: &Environment) -> Result<DockerfileSource> {
    let path = environment.resolve(text);
    let path = lower_case_of(&path).unwrap_or(path);
    if path.is_file() {
        return Ok(DockerfileSource::Path(path));
    }
    let error = unusable(&path);
    Err(match context.map(|folder| folder.join(text)).filter(|inside| inside != &path && inside.is_file()) {
        Some(inside) => {
            error.hint(format!("-f is relative to the working directory, as in docker; did you mean -f {}?", inside.display()))
        }
        None => error,
    })
}

/// Returns `dockerfile` if the directory has no `Dockerfile` (moby/moby#10858). It compares names, because some file systems
/// treat both as the same file.
fn lower_case_of(path: &Path) -> Option<PathBuf> {
    if path.file_name()? != "Dockerfile" {
        return None;
    }
    let names: Vec<_> = std::fs::read_dir(path.parent()?).ok()?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    let has = |name: &str| names.iter().any(|found| found == name);
    (!has("Dockerfile") && has("dockerfile")).then(|| path.with_file_name("dockerfile"))
}

fn unusable(path: &Path) -> Error {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Error::usage(format!("the Dockerfile {} is a directory", path.display())),
        Ok(_) => Error::usage(format!("the Dockerfile {} is not a file", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Error::usage(format!("no Dockerfile at {}", path.display())).hint("name the Dockerfile with -f FILE")
        }
        Err(error) => Error::usage(format!("failed to read the Dockerfile {}", path.display())).because(&error),
    }
}

/// Resolves `--build-context`.
pub fn named(texts: &[String], environment: &Environment) -> Result<BTreeMap<String, NamedContext>> {
    let mut out = BTreeMap::new();
    for text in texts {
        let (name, Some(value)) = words::key_value("build-context", text)? else {
            return Err(Error::usage(format!("invalid --build-context `{text}`: expected NAME=VALUE")));
        };
        out.insert(context_name(name)?, named_value(text, value, environment)?);
    }
    Ok(out)
}

/// Returns the name of a context, which is a reference in its short form, without `latest` (buildx `buildflags.ParseContextNames`).
fn context_name(name: &str) -> Result<String> {
    let reference: ImageRef =
        name.parse().map_err(|error| Error::usage(format!("invalid --build-context {name}")).because(&error))?;
    let full = reference.to_string();
    let hub = format!("{}/", RegistryHost::DOCKER_HUB);
    let short = full.strip_prefix(&hub).map_or(full.as_str(), |path| path.strip_prefix("library/").unwrap_or(path));
    Ok(short.strip_suffix(":latest").unwrap_or(short).to_owned())
}

fn named_value(text: &str, value: &str, environment: &Environment) -> Result<NamedContext> {
    if let Some(layout) = value.strip_prefix("oci-layout://") {
        let folder = environment.resolve(layout_folder(layout));
        return match folder.is_dir() {
            true => Ok(NamedContext::OciLayout(value.to_owned())),
            false => Err(Error::usage(format!("invalid --build-context {text}: no OCI layout at {}", folder.display()))),
        };
    }
    if is_remote(value) || value.starts_with("docker-image://") || value.starts_with("target:") {
        return Ok(NamedContext::Frontend(value.to_owned()));
    }
    let path = environment.resolve(value);
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => Ok(NamedContext::Directory(path)),
        Ok(_) => Err(Error::usage(format!("invalid --build-context {text}: {} is not a directory", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::usage(format!("invalid --build-context {text}: the directory {} does not exist", path.display()))
                .hint("use docker-image://NAME for an image and a Git or http(s) URL for a repository"))
        }
        Err(error) => {
            Err(Error::usage(format!("invalid --build-context {text}: failed to read {}", path.display())).because(&error))
        }
    }
}

/// Returns the path of `PATH[:TAG][@DIGEST]`.
fn layout_folder(layout: &str) -> &str {
    let path = layout.split_once('@').map_or(layout, |(path, _)| path);
    match path.rsplit_once(':') {
        Some((folder, tag)) if !tag.contains('/') => folder,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a working directory with: app/Dockerfile, app/extra/Other, low/dockerfile, empty/, context.tar.gz, layout/
    fn place() -> (tempfile::TempDir, Environment) {
        let folder = tempfile::tempdir().expect("a directory");
        for name in ["app/extra", "low", "empty", "layout", "odd/Dockerfile"] {
            std::fs::create_dir_all(folder.path().join(name)).expect("made");
        }
        for name in ["app/Dockerfile", "app/extra/Other", "low/dockerfile", "context.tar.gz", "outside"] {
            std::fs::write(folder.path().join(name), "FROM scratch").expect("written");
        }
        let environment = Environment { current_dir: folder.path().to_owned(), ..Environment::default() };
        (folder, environment)
    }

    #[test]
    fn contexts_of_each_kind() {
        let (folder, environment) = place();
        let of = |text: &str| context(Some(text), &environment);
        assert_eq!(of("app/.").ok(), Some(ContextSource::Directory(folder.path().join("app"))));
        assert_eq!(of("-").ok(), Some(ContextSource::Stdin));
        for url in [
            "https://x/y.tar",
            "https://h/r.git#main:dir",
            "git://h/r",
            "git@github.com:a/b.git",
            "github.com/a/b",
            "ssh://g@h/r",
        ] {
            assert_eq!(of(url).ok(), Some(ContextSource::Remote(url.to_owned())), "{url}");
        }
        for (text, word) in [
            ("", "requires a build context"),
            ("nothere", "`nothere` does not exist"),
            ("context.tar.gz", "is a file"),
            ("outside", "is a file"),
            ("s3://x/y", "does not exist"),
        ] {
            assert!(of(text).is_err_and(|error| error.to_string().contains(word)), "{text}");
        }
        assert!(context(None, &environment).is_err());
        assert!(of("context.tar.gz").is_err_and(|e| e.hint_text().is_some_and(|hint| hint.contains("build - < context.tar.gz"))));
    }

    #[test]
    fn dockerfiles_are_found_or_told() {
        let (folder, environment) = place();
        let at = |name: &str| folder.path().join(name);
        let of = |text: Option<&str>, context: &str| {
            let context = context_of(context, &environment);
            dockerfile(text, &context, &environment)
        };
        assert_eq!(of(None, "app").ok(), Some(DockerfileSource::Default));
        assert_eq!(of(None, "low").ok(), Some(DockerfileSource::Path(at("low/dockerfile"))));
        assert_eq!(of(Some("low/Dockerfile"), "app").ok(), Some(DockerfileSource::Path(at("low/dockerfile"))));
        assert_eq!(of(Some("./outside"), "app").ok(), Some(DockerfileSource::Path(at("outside"))));
        assert_eq!(of(Some("-"), "app").ok(), Some(DockerfileSource::Stdin));
        assert_eq!(of(Some("https://x/Dockerfile"), "app").ok(), Some(DockerfileSource::Remote("https://x/Dockerfile".into())));
        assert_eq!(of(Some("sub/Dockerfile"), "https://x/r.git").ok(), Some(DockerfileSource::Path("sub/Dockerfile".into())));
        assert_eq!(of(None, "-").ok(), Some(DockerfileSource::Default));
        for (text, context, word) in [
            (None, "empty", "empty/Dockerfile"),
            (None, "odd", "is a directory"),
            (Some("nothere"), "app", "no Dockerfile at"),
            (Some("-"), "-", "cannot be both"),
            (Some("/nowhere/Dockerfile"), "https://x/r.git", "/nowhere/Dockerfile"),
        ] {
            assert!(of(text, context).is_err_and(|error| error.to_string().contains(word)), "{text:?} {context}");
        }
        let hint = of(Some("extra/Other"), "app").expect_err("not from here").hint_text().map(str::to_owned).unwrap_or_default();
        assert!(hint.contains("app/extra/Other"), "{hint}");
    }

    fn context_of(text: &str, environment: &Environment) -> ContextSource {
        context(Some(text), environment).expect("a context")
    }

    #[test]
    fn named_contexts_have_short_names() {
        let (folder, environment) = place();
        let of = |text: &str| named(&[text.to_owned()], &environment).map(|found| found.into_iter().next());
        let pair = |name: &str, value: NamedContext| Some(Some((name.to_owned(), value)));
        let frontend = |text: &str| NamedContext::Frontend(text.to_owned());
        assert_eq!(of("src=app").ok(), pair("src", NamedContext::Directory(folder.path().join("app"))));
        assert_eq!(of("alpine:latest=docker-image://alpine:3").ok(), pair("alpine", frontend("docker-image://alpine:3")));
        assert_eq!(of("docker.io/team/x:1=https://h/r.git").ok(), pair("team/x:1", frontend("https://h/r.git")));
        assert_eq!(of("a=target:b").ok(), pair("a", frontend("target:b")));
        assert_eq!(of("a=oci-layout://layout:v1").ok(), pair("a", NamedContext::OciLayout("oci-layout://layout:v1".into())));
        for (text, word) in [
            ("a", "NAME=VALUE"),
            ("=x", "the name before `=` is missing"),
            ("A=app", "lower case"),
            ("a=nothere", "nothere"),
            ("a=outside", "not a directory"),
            ("a=oci-layout://no", "OCI layout"),
        ] {
            assert!(of(text).is_err_and(|error| error.to_string().contains(word)), "{text}");
        }
    }
}
