//! Resolves the smaller commands: `push`, `promote`, `doctor`, `init`, `login`, `completions`, and Docker's credential helper.

use clap::ArgMatches;
use clap_complete::Shell;

use super::command;
use super::environment::Environment;
use super::given::Given;
use super::{own_daemon, registries, reports, store};
use crate::ci::Ci;
use crate::domain::ImageRef;
use crate::error::{Error, Result};
use crate::settings::{Command, DoctorSettings, InitSettings, InitTarget, LoginSettings, Proxy};

/// Resolves `push IMAGE…`.
pub fn push(given: Given<'_>, environment: &Environment) -> Result<Command> {
    let mut images: Vec<ImageRef> = Vec::new();
    for text in given.list("image") {
        let image = reference(&text)?.with_default_tag();
        if image.digest.is_some() {
            return Err(Error::usage(format!("`{text}` names a digest, but a push requires a tag"))
                .hint("use `hakobi push HOST/NAME:TAG`"));
        }
        if !images.contains(&image) {
            images.push(image);
        }
    }
    if images.is_empty() {
        return Err(Error::usage("`hakobi push` requires the name of an image").hint("use `hakobi push HOST/NAME:TAG`"));
    }
    Ok(Command::Push {
        images,
        settings: registries::push_settings(given, environment)?,
        files: reports::files(given, environment),
    })
}

/// Resolves `promote SRC TAG…`.
pub fn promote(given: Given<'_>, environment: &Environment) -> Result<Command> {
    let source = reference(&given.text("source").unwrap_or_default())?.with_default_tag();
    if given.switch("list") {
        return match &source.tag {
            Some(_) if source.digest.is_none() => Ok(Command::History(source)),
            _ => Err(Error::usage(format!(
                "`{source}` names a digest, which has no history: a digest always names the same image"
            ))
            .hint("use `hakobi promote --list HOST/NAME:TAG`")),
        };
    }
    let mut targets: Vec<ImageRef> = Vec::new();
    for text in given.list("target") {
        let target = target(&source, &text)?;
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    if targets.is_empty() {
        return Err(
            Error::usage("`hakobi promote` requires a target tag").hint("use for example `hakobi promote HOST/NAME:TAG prod`")
        );
    }
    Ok(Command::Promote { source, targets, settings: registries::push_settings(given, environment)? })
}

/// Resolves `doctor`.
pub fn doctor(given: Given<'_>, environment: &Environment) -> Result<Command> {
    let tags = given.list("tag").iter().map(|text| Ok(reference(text)?.with_default_tag())).collect::<Result<_>>()?;
    let proxies = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    let proxies = proxies.into_iter().filter_map(|name| Some((name, environment.get(name)?)));
    let proxies: Result<Vec<Proxy>> = proxies.map(|(name, value)| proxy(name, value)).collect();
    Ok(Command::Doctor(Box::new(DoctorSettings {
        tags,
        store: store::store(given, environment, &[], &[])?,
        daemon: own_daemon::settings(given, environment),
        ci: Ci::detect(|name| environment.get(name).map(str::to_owned)).told(),
        proxies: proxies?,
    })))
}

/// Parses a proxy variable: a URL, or only a host with its port.
fn proxy(name: &str, value: &str) -> Result<Proxy> {
    let url = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let uri: Option<http::Uri> = url.parse().ok();
    let found = uri.as_ref().and_then(|uri| Some((uri.host()?, uri.port_u16(), uri.scheme_str()?)));
    let Some((host, port, scheme)) = found else {
        // The value may contain a password, so the message omits it.
        return Err(Error::usage(format!("{name} is not a valid proxy URL")).hint("use http://HOST:PORT"));
    };
    let usual = match scheme {
        "https" => 443,
        "http" => 80,
        _ => 1080,
    };
    Ok(Proxy { name: name.to_owned(), host: host.trim_matches(['[', ']']).to_owned(), port: port.unwrap_or(usual) })
}

/// Resolves `init CI`.
pub fn init(given: Given<'_>, environment: &Environment) -> Result<Command> {
    let target = match given.text("ci").as_deref() {
        Some("travis") => InitTarget::Travis,
        Some("jenkins") => InitTarget::Jenkins,
        Some("github") => InitTarget::GitHub,
        Some("gitlab") => InitTarget::GitLab,
        _ => InitTarget::CodeBuild,
    };
    if let Some(repository) = given.text("repository") {
        let parsed = reference(&repository)?;
        if parsed.tag.is_some() || parsed.digest.is_some() {
            return Err(Error::usage(format!("--repository {repository} names a tag")).hint("use HOST/NAME without a tag"));
        }
    }
    Ok(Command::Init(InitSettings {
        target,
        directory: environment.current_dir.clone(),
        repository: given.text("repository"),
        bucket: given.text("bucket"),
        force: given.switch("force"),
    }))
}

/// Resolves a target. A word without `/`, `:` and `@` is a tag in the source's repository. Otherwise it is a reference with a tag.
fn target(source: &ImageRef, text: &str) -> Result<ImageRef> {
    let bare = text.strip_prefix(':').unwrap_or(text);
    if !bare.contains(['/', ':', '@']) {
        let full = format!("{}:{bare}", source.repository);
        return full.parse().map_err(|_| {
            Error::usage(format!("invalid tag `{text}`")).hint("use at most 128 letters, digits, `_`, `.` and `-`")
        });
    }
    let target = reference(text)?;
    match (&target.digest, &target.tag) {
        (None, Some(_)) => Ok(target),
        (Some(_), _) => Err(Error::usage(format!("`{text}` names a digest, but a tag is required"))),
        (None, None) => Err(Error::usage(format!("`{text}` does not name a tag")).hint(format!("use {text}:TAG"))),
    }
}

fn reference(text: &str) -> Result<ImageRef> {
    text.parse().map_err(|error: crate::domain::InvalidReference| Error::usage(error.to_string()))
}

/// Resolves `login HOST [--write]`.
pub fn login(given: Given<'_>) -> Result<Command> {
    let host = registries::host("HOST", &given.text("registry").unwrap_or_default())?;
    Ok(Command::Login(if given.switch("write") { LoginSettings::Write(host) } else { LoginSettings::Check(host) }))
}

/// Resolves `completions SHELL`.
pub fn completions(matches: &ArgMatches) -> Result<Command> {
    let Some(shell) = matches.get_one::<Shell>("shell") else {
        return Err(Error::usage("`hakobi completions` requires the name of a shell"));
    };
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut command::hakobi(), "hakobi", &mut script);
    Ok(Command::Print(String::from_utf8_lossy(&script).into_owned()))
}

/// Resolves a call by the protocol of docker-credential-helpers: the action is the argument, the rest is on standard input.
/// hakobi stores no credentials: it rejects `store` and `erase`, and its `list` is empty.
pub fn credential_helper(given: Given<'_>, environment: &Environment) -> Result<Command> {
    match given.text("action").as_deref() {
        Some("get") => {
            let text = environment.read_stdin().map_err(|error| Error::usage("failed to read standard input").because(&error))?;
            match text.trim() {
                // This is the protocol's own message, which docker recognizes.
                "" => Err(Error::usage("no credentials server URL")),
                host => Ok(Command::Login(LoginSettings::Helper(host.to_owned()))),
            }
        }
        Some("list") => Ok(Command::Print("{}\n".to_owned())),
        Some("version") => Ok(Command::Print(format!("docker-credential-hakobi {}\n", env!("CARGO_PKG_VERSION")))),
        _ => Err(Error::usage("docker-credential-hakobi does not store credentials: it only returns them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_tag_beside_the_source() {
        let source: ImageRef = "h.x/team/app:1".parse().expect("a reference");
        for (text, expected) in [
            ("prod", Some("h.x/team/app:prod")),
            (":prod", Some("h.x/team/app:prod")),
            ("h.x/other:prod", Some("h.x/other:prod")),
            ("app:prod", Some("docker.io/library/app:prod")),
            ("h.x/other", None),
            ("-x", None),
            ("h.x/a@sha256:0123456789012345678901234567890123456789012345678901234567890123", None),
        ] {
            assert_eq!(target(&source, text).ok().map(|target| target.to_string()).as_deref(), expected, "{text}");
        }
    }
}
