//! `hakobi build`: declares the flags of `docker build` under their own names, and hakobi's, in groups.

use clap::{Arg, Command};

use super::cache_mounts;
use super::given::{choice, list, switch, text};
use super::own_daemon;
use super::reports;
use super::shared::{progress, pushes, registries, transport};

const SOURCE: &str = "Input";
const RESULT: &str = "Output";
const CACHE: &str = "Cache";
const MOUNTS: &str = "Cache mounts";
const DAEMON: &str = "Daemon";
const RUN: &str = "RUN steps";

/// Returns the command `build`.
pub fn build() -> Command {
    Command::new("build")
        .about("Build an image like `docker build`, and push it")
        .override_usage("hakobi build [OPTIONS] CONTEXT")
        .after_help(
            "Without --push, --load and --output, hakobi loads the image into the daemon.\n\
             Every option can also be set by an environment variable: --build-arg is HAKOBI_BUILD_ARG (one value per line for lists).",
        )
        .args_override_self(true)
        .arg(
            Arg::new("context")
                .value_name("CONTEXT")
                .help("The build context: a directory, a git or http(s) URL, or `-` for a tar on standard input"),
        )
        .args(source().into_iter().map(|arg| arg.help_heading(SOURCE)))
        .args(result().into_iter().chain(reports::flags()).map(|arg| arg.help_heading(RESULT)))
        .args(pushes())
        .args(registries())
        .args(cache().into_iter().map(|arg| arg.help_heading(CACHE)))
        .args(cache_mounts::flags().into_iter().map(|arg| arg.help_heading(MOUNTS)))
        .args(own_daemon::flags().into_iter().map(|arg| arg.help_heading(DAEMON)))
        .args(run().into_iter().map(|arg| arg.help_heading(RUN)))
        .args(progress())
        .args(accepted().into_iter().map(|arg| arg.hide(true)))
}

/// Returns the command `plan`, which has the flags of `build`.
pub fn plan() -> Command {
    build()
        .name("plan")
        .about("Show which steps of a build would run, and why, without running them")
        .override_usage("hakobi plan [OPTIONS] CONTEXT")
        .after_help("Accepts the options of `hakobi build` and shows what that command would do with the current cache.")
        .arg(choice("format", "KIND", &["text", "json"], "Output format [default: text]").help_heading("Display"))
}

fn source() -> Vec<Arg> {
    vec![
        text("file", "FILE", "The Dockerfile: a path, `-` for standard input, or a URL [default: CONTEXT/Dockerfile]").short('f'),
        text("target", "STAGE", "The stage to build [default: the last]"),
        list("build-arg", "NAME[=VALUE]", "Set a build argument; without =VALUE, use the environment variable (repeatable)"),
        list(
            "build-context",
            "NAME=VALUE",
            "Add a named context: a directory, docker-image://, oci-layout:// or a URL (repeatable)",
        ),
        list("platform", "OS/ARCH[/VARIANT]", "Target platforms, separated by commas [default: the daemon's platform]"),
        list("label", "NAME=VALUE", "Add a label to the image (repeatable)"),
        list("annotation", "[TYPE:]NAME=VALUE", "Add an annotation to the image's manifest (repeatable)"),
        text(
            "call",
            "METHOD",
            "What to do with the Dockerfile: build, check, outline or targets; add `,format=json` for JSON [default: build]",
        ),
        switch("check", "Check the Dockerfile without building it; short for --call=check"),
    ]
}

fn result() -> Vec<Arg> {
    vec![
        list("tag", "NAME[:TAG]", "Image name: [HOST/]NAME[:TAG] (repeatable)").short('t'),
        switch("tag-commit", "Also tag the image with the Git commit, in every repository named by --tag"),
        switch("push", "Push the image under all its tags"),
        switch("load", "Load the image into the daemon, even if it is pushed"),
        list(
            "output",
            "DEST",
            "Write the result: type=local|tar|oci|docker,dest=PATH, type=image,push=true, or a directory (repeatable)",
        )
        .short('o'),
        text("iidfile", "FILE", "Write the image ID to a file"),
        text("metadata-file", "FILE", "Write metadata of the result to a JSON file, as buildx does"),
        text("summary", "FILE", "Write a Markdown summary of the run [GitHub Actions: also added to the job summary]"),
        text(
            "image-definitions",
            "FILE",
            "Write imagedefinitions.json for an ECS deploy action; entries of other containers are preserved",
        ),
        list(
            "container-name",
            "NAME",
            "Name of a container that uses the image [default: last part of the repository name] (repeatable)",
        ),
        text("image-detail", "FILE", "Write imageDetail.json for a blue/green deploy action"),
        text("image-env", "FILE", "Write IMAGE_URI, IMAGE_DIGEST and IMAGE_TAG to a file that a shell can source with `.`"),
        text("provenance", "VALUE", "Accepts only `false`: hakobi pushes images without attestations"),
        text("sbom", "VALUE", "Accepts only `false`: hakobi pushes images without attestations"),
        list("attest", "CSV", "Accepts only `disabled=true`: hakobi pushes images without attestations"),
    ]
}

fn cache() -> Vec<Arg> {
    let mut all = vec![
        list(
            "cache-from",
            "REF|CSV",
            "Use the cache beside an image (HOST/NAME:latest), or read BuildKit's type=registry,ref=… (repeatable)",
        ),
        list("cache-to", "REF|CSV", "Write a cache: type=inline, or BuildKit's type=registry,ref=… (repeatable)"),
        transport(),
        choice(
            "strategy",
            "WHO",
            &["auto", "daemon"],
            "Who decides which steps are cached: hakobi (`auto`) or BuildKit (`daemon`) [default: auto]",
        ),
        text("max-age", "TIME", "Run a command again if its cached result is older than this, for example 12h, 7d or 2w"),
        switch("recorded-bases", "If a registry does not answer, use the base image digests recorded by the last build"),
        switch(
            "verify",
            "Check layers that hakobi assembled without pulling the base against the daemon's; exit 1 if they differ",
        ),
        text("cache-repository", "REF", "Repository for the cache of --cache-from [default: the image's repository]"),
        switch("no-cache", "Build every step without the cache"),
        list("no-cache-filter", "STAGE", "Build every step of this stage without the cache (repeatable)"),
        switch("pull", "Check the registry for newer base images, even if the daemon has them"),
    ];
    all.splice(2..2, store());
    all
}

/// Returns the flag of the cache's location.
pub fn cache_location() -> Arg {
    text(
        "cache",
        "URL|DIR",
        "Cache location: s3://BUCKET/PREFIX, oci://HOST/REPOSITORY or a directory [default: `hakobi` in the user's cache directory]",
    )
}

/// Returns the flags of the cache: its location, scopes and mode.
pub fn store() -> Vec<Arg> {
    vec![
        cache_location(),
        text("cache-scope", "NAME", "Cache scope to write, and to read first [default: the branch or pull request]"),
        list(
            "cache-fallback",
            "NAME",
            "Cache scopes to read next, in this order [default: the pull request's target branch, main] (repeatable)",
        ),
        choice("cache-mode", "MODE", &["read-write", "read-only", "off"], "Allowed access to the cache [default: read-write]"),
        text(
            "cache-max-size",
            "SIZE",
            "Size above which a cache in a directory is pruned at the end [default: 5GiB for the default directory]",
        ),
        switch("cache-required", "Fail with exit code 4 if the cache fails, instead of building without it"),
    ]
}

fn run() -> Vec<Arg> {
    vec![
        list("secret", "CSV", "Expose a secret to RUN: id=NAME,src=FILE or id=NAME,env=VARIABLE (repeatable)"),
        list("ssh", "ID[=PATH]", "Expose an SSH agent or keys to RUN: default, or ID=SOCKET|KEY[,KEY] (repeatable)"),
        text("network", "MODE", "Network mode of RUN: default, none or host"),
        list("add-host", "NAME:IP", "Add a host to /etc/hosts; host-gateway means the daemon's host (repeatable)"),
        list("allow", "WHAT", "Allow network.host, security.insecure or device (repeatable)"),
        list("ulimit", "NAME=SOFT[:HARD]", "Set a resource limit, for example nofile=1024:2048 (repeatable)"),
        text("shm-size", "SIZE", "Size of /dev/shm, for example 128m"),
        text("cgroup-parent", "CGROUP", "Parent cgroup of RUN"),
        list(
            "resource",
            "NAME=VALUE",
            "Limit memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus or cpuset-mems (repeatable)",
        ),
    ]
}

/// Returns flags that hakobi accepts like docker, but that have no help: older names, and flags without a meaning in BuildKit.
fn accepted() -> Vec<Arg> {
    vec![
        text("memory", "SIZE", "The same as --resource memory=SIZE").short('m'),
        text("memory-swap", "SIZE", "The same as --resource memory-swap=SIZE"),
        text("cpu-shares", "NUMBER", "The same as --resource cpu-shares=NUMBER").short('c'),
        text("cpu-period", "NUMBER", "The same as --resource cpu-period=NUMBER"),
        text("cpu-quota", "NUMBER", "The same as --resource cpu-quota=NUMBER"),
        text("cpuset-cpus", "CPUS", "The same as --resource cpuset-cpus=CPUS"),
        text("cpuset-mems", "NODES", "The same as --resource cpuset-mems=NODES"),
        text("builder", "NAME", "Only `default` or the current Docker context"),
        switch("compress", "Does nothing"),
        switch("rm", "Does nothing"),
        switch("force-rm", "Does nothing"),
        switch("squash", "Does nothing, with a warning"),
        text("isolation", "KIND", "Does nothing, with a warning"),
        list("security-opt", "OPTION", "Does nothing, with a warning"),
    ]
}
