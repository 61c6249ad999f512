//! The commands that use only the cache: `save`, `restore`, `import`, `export`, `cache`.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command as Clap};

use super::environment::Environment;
use super::given::{Given, list, switch, text};
use super::shared::{progress, transport};
use super::{build_flags, registries, reports, store, words};
use crate::domain::ImageRef;
use crate::error::{Error, Result};
use crate::settings::{ArchiveFrom, CacheCommand, CacheSettings, Command, Compression, PruneSettings, StoreLocation};

fn images(help: &'static str) -> Arg {
    Arg::new("image").value_name("IMAGE").help(help).required(true).action(ArgAction::Append)
}

fn compression() -> Arg {
    text(
        "compression",
        "KIND[:LEVEL]",
        "Compression of layers that are not yet compressed: gzip[:1-9] or zstd[:1-22] [default: gzip:6]",
    )
}

/// Returns the flags of the cache, which all these commands share.
fn cache_flags() -> impl Iterator<Item = Arg> {
    build_flags::store().into_iter().map(|arg| arg.help_heading("Cache"))
}

pub fn save_command() -> Clap {
    Clap::new("save")
        .about("Save images from the daemon to the cache, for jobs that call docker build themselves")
        .after_help("Uploads only layers that the cache lacks. `hakobi build` does this by itself.")
        .args_override_self(true)
        .arg(images("Image in the daemon; use a name that does not change, for example `app:latest`"))
        .arg(compression())
        .args(reports::flags())
        .arg(transport())
        .args(cache_flags())
        .args(progress())
}

pub fn restore_command() -> Clap {
    Clap::new("restore")
        .about("Load images from the cache into the daemon, for jobs that call docker build themselves")
        .after_help(
            "Downloads only layers that the daemon lacks. If the cache has no such image, prints a note and succeeds.\n\
             Then `docker build --cache-from IMAGE --build-arg BUILDKIT_INLINE_CACHE=1 -t IMAGE .` and `hakobi save IMAGE`.",
        )
        .args_override_self(true)
        .arg(images("Image to restore, by the name it was saved under"))
        .args(reports::flags())
        .arg(transport())
        .args(cache_flags())
        .args(progress())
}

pub fn import_command() -> Clap {
    Clap::new("import")
        .about("Import a docker save tarball into the cache")
        .after_help("A tarball may be uncompressed, gzip or zstd, in Docker's or OCI's layout, and may hold several images.")
        .args_override_self(true)
        .arg(
            Arg::new("file")
                .value_name("FILE|URL")
                .help("Tarball: a file, s3://BUCKET/KEY, or `-` for standard input")
                .required(true),
        )
        .arg(Arg::new("image").value_name("IMAGE").help("Name for an image that has no name in the tarball"))
        .arg(compression())
        .args(cache_flags())
        .args(progress())
}

pub fn export_command() -> Clap {
    Clap::new("export")
        .about("Export an image from the cache as a tarball for docker load")
        .args_override_self(true)
        .arg(Arg::new("image").value_name("IMAGE").help("Image to export, as shown by `hakobi cache ls`").required(true))
        .arg(text("output", "FILE", "Tarball to write; `-` for standard output").short('o').required(true))
        .args(cache_flags())
        .args(progress())
}

pub fn cache_command() -> Clap {
    let json = || switch("json", "Print JSON");
    Clap::new("cache")
        .about("Inspect, verify and prune the cache")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(Clap::new("ls").about("List the cached images by scope").arg(json()).arg(where_it_is()).args(progress()))
        .subcommand(Clap::new("stat").about("Show the size of the cache").arg(json()).arg(where_it_is()).args(progress()))
        .subcommand(
            Clap::new("verify")
                .about("Read every blob and compare it with its digest; exit code 4 if anything is wrong")
                .arg(switch("repair", "Remove damaged objects; the next build creates them again"))
                .arg(where_it_is())
                .args(progress()),
        )
        .subcommand(prune_command())
}

fn prune_command() -> Clap {
    Clap::new("prune")
        .visible_alias("gc")
        .about("Remove what no build used of late")
        .after_help(
            "Name at least one of --keep, --keep-builds and --max-size. A build that loses something only runs more steps.",
        )
        .arg(text("keep", "TIME", "Remove builds that were not used for longer, for example 30d"))
        .arg(text("keep-builds", "N", "Keep this many builds of each image in each scope, the latest ones"))
        .arg(text(
            "max-size",
            "SIZE",
            "Largest size of what builds need, for example 20GiB; the builds unused for longest go first",
        ))
        .arg(list("scope", "PATTERN", "Only in scopes of this name, for example `pr-*`; several are allowed"))
        .arg(text("grace", "TIME", "How long content stays that no build needs: twice as long as the longest job [default: 48h]"))
        .arg(switch("dry-run", "Say what would be removed, and remove nothing"))
        .arg(switch("json", "Print JSON"))
        .arg(where_it_is())
        .args(progress())
}

/// How long content stays that no build needs, unless the user says otherwise.
const GRACE: Duration = Duration::from_hours(48);

fn prune(given: Given<'_>) -> Result<PruneSettings> {
    let time = |flag: &str| given.text(flag).map(|text| words::duration(flag, &text, "12h, 30d or 8w")).transpose();
    let builds = |text: String| {
        text.parse().map_err(|_| Error::usage(format!("invalid number for --keep-builds: `{text}`")).hint("use a whole number"))
    };
    let settings = PruneSettings {
        keep: time("keep")?,
        keep_builds: given.text("keep-builds").map(builds).transpose()?,
        max_size: given.text("max-size").map(|text| words::bytes("max-size", &text)).transpose()?,
        scopes: given.list("scope"),
        grace: time("grace")?.unwrap_or(GRACE),
        marks: true,
        dry_run: given.switch("dry-run"),
        json: given.switch("json"),
    };
    if settings.keep.is_none() && settings.keep_builds.is_none() && settings.max_size.is_none() {
        return Err(Error::usage("`hakobi cache prune` must be told what to keep")
            .hint("use --keep 30d, --keep-builds 20 or --max-size 20GiB; --dry-run says what would go"));
    }
    Ok(settings)
}

fn where_it_is() -> Arg {
    build_flags::cache_location().help_heading("Cache")
}

/// Resolves `save IMAGE…`.
pub fn save(given: Given<'_>, environment: &Environment) -> Result<Command> {
    let compression = compression_of(given)?;
    Ok(Command::Save {
        images: named(given)?,
        cache: cache(given, environment)?,
        compression,
        files: reports::files(given, environment),
    })
}

/// Resolves `restore IMAGE…`.
pub fn restore(given: Given<'_>, environment: &Environment) -> Result<Command> {
    Ok(Command::Restore { images: named(given)?, cache: cache(given, environment)?, files: reports::files(given, environment) })
}

/// Resolves `import FILE|URL [IMAGE]`.
pub fn import(given: Given<'_>, environment: &Environment) -> Result<Command> {
    let from = match given.text("file").unwrap_or_default() {
        stdin if stdin == "-" => ArchiveFrom::Stdin,
        url if url.starts_with("s3://") => object(&url, environment)?,
        url if url.contains("://") => {
            return Err(Error::usage(format!("cannot read an archive from {url}: unknown scheme"))
                .hint("use a file, s3://BUCKET/KEY, or `-` for standard input"));
        }
        path => ArchiveFrom::File(environment.resolve(path)),
    };
    let name = given.text("image").map(|text| name(&text)).transpose()?;
    let compression = compression_of(given)?;
    Ok(Command::Import { from, name, cache: cache(given, environment)?, compression })
}

fn object(url: &str, environment: &Environment) -> Result<ArchiveFrom> {
    let wrong = || Error::usage(format!("{url} does not name an object")).hint("use s3://BUCKET/KEY");
    let (path, query) = url.split_once('?').map_or((url, String::new()), |(path, query)| (path, format!("?{query}")));
    let (folder, name) =
        path.rsplit_once('/').filter(|(folder, name)| folder.len() > "s3://".len() && !name.is_empty()).ok_or_else(wrong)?;
    match store::location(&format!("{folder}{query}"), environment)? {
        StoreLocation::S3(bucket) => Ok(ArchiveFrom::S3 { bucket, name: name.to_owned() }),
        StoreLocation::Directory(_) | StoreLocation::Registry(_) => Err(wrong()),
    }
}

/// Resolves `export IMAGE -o FILE`.
pub fn export(given: Given<'_>, environment: &Environment) -> Result<Command> {
    let image = name(&given.text("image").unwrap_or_default())?;
    let file = given.text("output").filter(|file| file != "-").map(|file| environment.resolve(file));
    Ok(Command::Export { image, file, cache: cache(given, environment)? })
}

/// Resolves `cache ls|stat|verify|prune`.
pub fn cache_of(matches: &ArgMatches, environment: &Environment) -> Result<Command> {
    let Some((name, matches)) = matches.subcommand() else {
        return Err(Error::usage("`hakobi cache` requires a command").hint("use `hakobi cache ls`, `stat`, `verify` or `prune`"));
    };
    let given = Given(matches);
    let json = given.switch("json");
    let command = match name {
        "stat" => CacheCommand::Stat { json },
        "verify" => CacheCommand::Verify { repair: given.switch("repair") },
        "prune" => CacheCommand::Prune(prune(given)?),
        _ => CacheCommand::List { json },
    };
    Ok(Command::Cache { command, cache: cache(given, environment)? })
}

fn cache(given: Given<'_>, environment: &Environment) -> Result<CacheSettings> {
    store::store(given, environment, &[], &[])?.ok_or_else(|| {
        Error::usage("this command requires a cache, but the cache is off")
            .hint("name one with --cache s3://BUCKET/PREFIX, --cache oci://HOST/REPOSITORY or --cache DIR, and do not use --cache-mode off")
    })
}

fn compression_of(given: Given<'_>) -> Result<Compression> {
    Ok(given.text("compression").map(|text| registries::compression(&text)).transpose()?.unwrap_or_default())
}

fn named(given: Given<'_>) -> Result<Vec<ImageRef>> {
    let mut out: Vec<ImageRef> = Vec::new();
    for text in given.list("image") {
        let image = name(&text)?;
        if !out.contains(&image) {
            out.push(image);
        }
    }
    if out.is_empty() { Err(Error::usage("the name of an image is missing")) } else { Ok(out) }
}

fn name(text: &str) -> Result<ImageRef> {
    let image: ImageRef = text.parse().map_err(|error: crate::domain::InvalidReference| Error::usage(error.to_string()))?;
    match image.digest {
        Some(_) => Err(Error::usage(format!("`{text}` names a digest, but a tag is required"))
            .hint("use a name with a tag, for example app:latest")),
        None => Ok(image.with_default_tag()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::S3Settings;

    #[test]
    fn objects_are_named_by_buckets_and_keys() {
        let environment = Environment::default();
        let bucket = S3Settings { bucket: "b".into(), ..S3Settings::default() };
        let from = |text: &str| object(text, &environment).ok();
        let s3 = |bucket: S3Settings, name: &str| Some(ArchiveFrom::S3 { bucket, name: name.into() });
        assert_eq!(from("s3://b/app.tar.gz"), s3(bucket.clone(), "app.tar.gz"));
        let deep = S3Settings { prefix: "a/c".into(), region: Some("x-1".into()), ..bucket };
        assert_eq!(from("s3://b/a/c/app.tar?region=x-1"), s3(deep.clone(), "app.tar"));
        assert_eq!(from("s3://b/a/c/app.tar?region=x-1").map(|from| from.to_string()).as_deref(), Some("s3://b/a/c/app.tar"));
        for text in ["s3://b", "s3://b/", "s3://b/a/"] {
            assert_eq!(from(text), None, "{text}");
        }
    }
}
