//! `hakobi build`: converts flags, environment and Docker's configuration to [`BuildSettings`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::docker_config::DockerConfig;
use super::environment::Environment;
use super::given::Given;
use super::{
    cache_mounts, caches, context, daemon, frontend, hand_off, mounts, outputs, own_daemon, registries, reports, store, words,
};
use crate::ci::Ci;
use crate::domain::{ImageRef, Platform};
use crate::error::{Error, Result};
use crate::settings::{BuildSettings, CacheFrom, ContextSource, DaemonEndpoint, Strategy};

/// The sources of settings besides the flags.
pub struct Around<'a> {
    /// The environment of the process.
    pub environment: &'a Environment,
    /// Docker's configuration.
    pub config: &'a DockerConfig,
    /// The daemon, because proxies are configured per daemon.
    pub daemon: &'a DaemonEndpoint,
}

/// Resolves all settings. Invalid combinations are errors here, before any work.
pub fn settings(given: Given<'_>, around: &Around<'_>, warnings: &mut Vec<String>) -> Result<BuildSettings> {
    let environment = around.environment;
    let path = |name: &str| given.text(name).map(|file| environment.resolve(file));
    builder(given, around)?;
    no_meaning(given, environment, warnings);
    attestations(given)?;

    let context_text = given.text("context");
    let source = context::context(context_text.as_deref(), environment)?;
    let dockerfile = context::dockerfile(given.text("file").as_deref(), &source, environment)?;
    let git_over_ssh = matches!(&source, ContextSource::Remote(url) if context::is_git_over_ssh(url));

    let call = call(given)?;
    let builds = call.method == "build";
    let mut to = outputs::destinations(&given.list("output"), given.switch("push"), given.switch("load"), environment, warnings)?;
    if !builds {
        // A `--call` makes no image, so it has no outputs.
        to = outputs::Destinations::default();
    }
    let ci = Ci::detect(|name| environment.get(name).map(str::to_owned));
    let mut tags = tags(given, &to.names)?;
    if given.switch("tag-commit") {
        tag_commit(&mut tags, &source, environment, &ci)?;
    }
    if to.push && tags.is_empty() {
        return Err(Error::usage("a push requires a name for the image").hint("name the image: -t HOST/NAME:TAG"));
    }
    let hand_off = hand_off::settings(given, environment, &ci, &tags, to.push, warnings)?;
    if to.push && !ci.has_secrets {
        warnings.push(
            "this job has no access to secrets (a pull request from a fork): building the image without pushing it".to_owned(),
        );
        to.push = false;
        to.load |= to.outputs.is_empty();
    }
    let iid_file = path("iidfile");
    if iid_file.is_some() && to.outputs.iter().any(|output| matches!(output.kind.as_str(), "local" | "tar")) {
        return Err(Error::usage("--iidfile cannot be used with type=local or type=tar: these outputs have no image ID"));
    }
    let mut push_settings = registries::push_settings(given, environment)?;
    if let Some(compression) = to.compression
        && given.text("compression").is_none()
    {
        push_settings.compression = compression;
    }
    let build_args = build_args(given, around)?;
    let cache_from = caches::cache_from(&given.list("cache-from"), environment)?;
    let pushed = if to.push { &*tags } else { &[] };
    let store = store::store(given, environment, &cache_from, pushed)?;
    if given.text("cache-repository").is_some() && (given.text("cache").is_some() || !cache_from.iter().any(CacheFrom::is_image))
    {
        warnings.push("--cache-repository has no effect: it says where the cache of --cache-from IMAGE is".to_owned());
    }
    Ok(BuildSettings {
        context: source,
        dockerfile,
        target: given.text("target"),
        labels: labels(given)?,
        annotations: annotations(given, to.annotations)?,
        platforms: platforms(given, environment)?,
        secrets: mounts::secrets(&given.list("secret"), environment, warnings)?,
        ssh: mounts::ssh(&given.list("ssh"), git_over_ssh, environment)?,
        named_contexts: context::named(&given.list("build-context"), environment)?,
        frontend_options: frontend::options(given, warnings)?,
        entitlements: frontend::entitlements(given)?,
        call: call.method,
        call_format: call.format,
        call_ignore_status: call.ignore_status,
        tags,
        push: to.push,
        load: to.load,
        outputs: to.outputs,
        cache_from,
        cache_to: caches::cache_to(&given.list("cache-to"), &build_args, environment)?,
        build_args,
        daemon: own_daemon::settings(given, environment),
        mounts: cache_mounts::settings(given, store.as_ref())?,
        store,
        strategy: match given.text("strategy").as_deref() {
            Some("daemon") => Strategy::Daemon,
            _ => Strategy::Auto,
        },
        max_age: max_age(given)?,
        recorded_bases: given.switch("recorded-bases"),
        verify: given.switch("verify"),
        push_settings,
        iid_file,
        metadata_file: path("metadata-file"),
        files: reports::files(given, environment),
        hand_off,
        ci: ci.told(),
    })
}

/// Returns the maximum age of the results of commands.
fn max_age(given: Given<'_>) -> Result<Option<Duration>> {
    let Some(text) = given.text("max-age") else { return Ok(None) };
    let age = words::duration("max-age", &text, "12h, 7d or 2w")?;
    if given.text("strategy").as_deref() == Some("daemon") {
        return Err(Error::usage("--max-age cannot be used with --strategy daemon: BuildKit decides which steps are cached"));
    }
    Ok(Some(age))
}

/// Rejects other builders than the daemon's own BuildKit.
fn builder(given: Given<'_>, around: &Around<'_>) -> Result<()> {
    let flag = given.text("builder").map(|name| (name, "--builder"));
    let Some((name, origin)) =
        flag.or_else(|| around.environment.get("BUILDX_BUILDER").map(|name| (name.to_owned(), "BUILDX_BUILDER")))
    else {
        return Ok(());
    };
    let current = daemon::current_context(given.text("host").as_deref(), around.environment, around.config);
    if name == "default" || name == current {
        return Ok(());
    }
    Err(Error::usage(format!("{origin} selects the builder `{name}`, but hakobi supports only the Docker daemon's own BuildKit"))
        .hint(format!("remove {origin} or set it to `default`")))
}

/// Warns of flags that docker accepts, but that have no effect with BuildKit.
fn no_meaning(given: Given<'_>, environment: &Environment, warnings: &mut Vec<String>) {
    if environment.get("DOCKER_BUILDKIT").and_then(words::boolean) == Some(false) {
        warnings.push("DOCKER_BUILDKIT=0 has no effect: hakobi always builds with BuildKit".to_owned());
    }
    if given.switch("squash") {
        warnings.push("--squash has no effect with BuildKit; use a multi-stage Dockerfile instead".to_owned());
    }
    if given.text("isolation").is_some() {
        warnings.push("--isolation has no effect with BuildKit".to_owned());
    }
    if !given.list("security-opt").is_empty() {
        warnings.push("--security-opt has no effect with BuildKit; use RUN --security=insecure instead".to_owned());
    }
}

/// Rejects attestations. `--provenance X` is short for `--attest type=provenance,X` (buildx `ParseAttests`).
fn attestations(given: Given<'_>) -> Result<()> {
    let short = ["provenance", "sbom"].into_iter().filter_map(|kind| {
        let text = given.text(kind)?;
        Some(match words::boolean(&text) {
            Some(wanted) => (format!("--{kind}={text}"), format!("type={kind},disabled={}", !wanted)),
            None => (format!("--{kind}={text}"), format!("type={kind},{text}")),
        })
    });
    let long = given.list("attest").into_iter().map(|text| (format!("--attest {text}"), text));
    for (shown, text) in long.chain(short) {
        let mut attributes: BTreeMap<String, String> = words::pairs("attest", &text)?.into_iter().collect();
        if attributes.get("type").is_none_or(String::is_empty) {
            return Err(Error::usage(format!("invalid {shown}: the type is missing")).hint("use type=provenance or type=sbom"));
        }
        if !words::take_boolean("attest", &mut attributes, "disabled", false)? {
            return Err(Error::usage(format!(
                "{shown} is not supported: hakobi pushes images without attestations, which every registry and runtime accepts"
            ))
            .hint("remove it, or use --provenance=false and --sbom=false"));
        }
    }
    Ok(())
}

/// The parsed value of `--call`.
struct Call {
    method: String,
    format: Option<String>,
    ignore_status: bool,
}

/// Parses `--call METHOD[,format=…][,ignorestatus=…]` (buildx `ParseCallFunc`). `--check` is short for `--call check`.
fn call(given: Given<'_>) -> Result<Call> {
    let text = match (given.switch("check"), given.text("call")) {
        (true, None) => "check".to_owned(),
        (true, Some(text)) if given.on_command_line("check") && !given.on_command_line("call") => {
            text.split_once(',').map_or_else(|| "check".to_owned(), |(_, rest)| format!("check,{rest}"))
        }
        (_, text) => text.unwrap_or_else(|| "build".to_owned()),
    };
    let wrong = |what: String| {
        Error::usage(format!("invalid --call {text}: {what}"))
            .hint("use build, check, outline or targets, with `,format=json` for JSON")
    };
    let mut call = Call { method: "build".to_owned(), format: None, ignore_status: false };
    for field in words::fields(&text)? {
        match (field.as_str(), field.split_once('=')) {
            ("build" | "check" | "outline" | "targets", _) => call.method = field,
            ("lint", _) => call.method = "check".to_owned(),
            (_, Some(("format", format @ ("json" | "text")))) => call.format = Some(format.to_owned()),
            (_, Some(("ignorestatus", value))) => {
                call.ignore_status = words::boolean(value).ok_or_else(|| wrong(format!("`{field}` must be true or false")))?;
            }
            _ => return Err(wrong(format!("unknown value `{field}`"))),
        }
    }
    Ok(call)
}

/// Returns the values of `-t`, else the names in an image's output, without duplicates.
fn tags(given: Given<'_>, names: &[String]) -> Result<Vec<ImageRef>> {
    let texts = given.list("tag");
    let mut out: Vec<ImageRef> = Vec::new();
    for text in if texts.is_empty() { names } else { &texts } {
        let tag = words::reference("tag", text)?;
        if tag.digest.is_some() {
            return Err(Error::usage(format!("--tag {text} names a digest, but a tag is required"))
                .hint("name the image: -t HOST/NAME:TAG"));
        }
        if !out.contains(&tag) {
            out.push(tag);
        }
    }
    Ok(out)
}

/// Adds the commit as a tag in each repository of the other tags.
fn tag_commit(tags: &mut Vec<ImageRef>, source: &ContextSource, environment: &Environment, ci: &Ci) -> Result<()> {
    if tags.is_empty() {
        return Err(Error::usage("--tag-commit requires a name for the image").hint("name the repository with -t HOST/NAME"));
    }
    let directory = match source {
        ContextSource::Directory(directory) => directory,
        ContextSource::Stdin | ContextSource::Remote(_) => &environment.current_dir,
    };
    let Some(commit) = ci.commit_or_head(directory) else {
        return Err(Error::usage("--tag-commit: cannot determine the commit").hint(format!(
            "run it in a Git repository with a commit ({} is in none), or set the CI's commit variable",
            directory.display()
        )));
    };
    for repository in tags.iter().map(|tag| tag.repository.clone()).collect::<Vec<_>>() {
        let tag = repository.tag(&commit);
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(())
}

/// Returns the build arguments: `--build-arg`, SOURCE_DATE_EPOCH and Docker's proxies. An argument without a value takes it from
/// the environment, and is left out if the variable is not set. A given argument overrides a proxy (buildx `proxyArgKeyExists`).
fn build_args(given: Given<'_>, around: &Around<'_>) -> Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    for text in given.list("build-arg") {
        let (key, value) = words::key_value("build-arg", &text)?;
        if let Some(value) = value.or_else(|| around.environment.get_raw(key)) {
            out.insert(key.to_owned(), value.to_owned());
        }
    }
    if let Some(epoch) = around.environment.get("SOURCE_DATE_EPOCH") {
        out.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert_with(|| epoch.to_owned());
    }
    let syntax = out.get("BUILDKIT_SYNTAX").is_some_and(|value| value.trim().is_empty());
    if syntax {
        return Err(Error::usage("the build argument BUILDKIT_SYNTAX is empty")
            .hint("set it to a frontend image, or omit the `=` to use the environment variable"));
    }
    for (name, value) in around.config.proxy_arguments(&around.daemon.url) {
        if !out.keys().any(|key| key.eq_ignore_ascii_case(name)) {
            out.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(out)
}

fn labels(given: Given<'_>) -> Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    for text in given.list("label") {
        let (key, value) = words::key_value("label", &text)?;
        out.insert(key.to_owned(), value.unwrap_or_default().to_owned());
    }
    Ok(out)
}

/// Checks annotations, `[TYPE[[PLATFORM]],…:]KEY=VALUE`, and returns them unchanged (buildx `ParseAnnotations`).
fn annotations(given: Given<'_>, more: Vec<String>) -> Result<Vec<String>> {
    let texts: Vec<String> = given.list("annotation").into_iter().chain(more).collect();
    for text in &texts {
        let wrong = |what: String| {
            Error::usage(format!("invalid --annotation `{text}`: {what}"))
                .hint("use [TYPE:]NAME=VALUE, for example manifest:org.opencontainers.image.title=App")
        };
        let (key, _) = text.split_once('=').ok_or_else(|| wrong("expected NAME=VALUE".to_owned()))?;
        let (types, name) = key.split_once(':').unwrap_or(("", key));
        if name.is_empty() {
            return Err(wrong("the name before `=` is missing".to_owned()));
        }
        for part in types.split(',').filter(|_| key.contains(':')) {
            let (kind, platform) = match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
                Some((kind, platform)) => (kind, Some(platform)),
                None => (part, None),
            };
            if let Some(platform) = platform {
                platform.parse::<Platform>().map_err(|error| wrong(error.to_string()))?;
            }
            match kind {
                "manifest" | "manifest-descriptor" | "index" | "index-descriptor" => {}
                _ => return Err(wrong(format!("unknown annotation type `{part}`"))),
            }
        }
    }
    Ok(texts)
}

/// Returns the platforms of `--platform`, else of DOCKER_DEFAULT_PLATFORM. `local` is this machine's platform.
fn platforms(given: Given<'_>, environment: &Environment) -> Result<Vec<Platform>> {
    let mut texts = given.list("platform");
    let mut origin = "--platform";
    if texts.is_empty() {
        texts.extend(environment.get("DOCKER_DEFAULT_PLATFORM").map(str::to_owned));
        origin = "DOCKER_DEFAULT_PLATFORM";
    }
    let mut out: Vec<Platform> = Vec::new();
    for text in texts.iter().flat_map(|text| text.split(',')).map(str::trim) {
        let text = if text.eq_ignore_ascii_case("local") { std::env::consts::ARCH } else { text };
        let platform = text.parse().map_err(|error| Error::usage(format!("invalid {origin} {text}")).because(&error))?;
        if !out.contains(&platform) {
            out.push(platform);
        }
    }
    Ok(out)
}
