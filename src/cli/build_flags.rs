//! `hakobi build`: the flags of `docker build` under their own names, and ours, in groups.

use clap::{Arg, Command};

use super::given::{choice, list, switch, text};
use super::reports;
use super::shared::{progress, pushes, registries, transport};

const SOURCE: &str = "What is built";
const RESULT: &str = "Where the result goes";
const CACHE: &str = "Cache";
const RUN: &str = "How RUN runs";

/// `build`.
pub fn build() -> Command {
    Command::new("build")
        .about("Build an image as `docker build` does, and push it")
        .override_usage("hakobi build [OPTIONS] CONTEXT")
        .after_help(
            "With none of --push, --load and --output the image is put into the daemon.\n\
             Every option can also be given as a variable: --build-arg is HAKOBI_BUILD_ARG (lists by newline).",
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
        .args(run().into_iter().map(|arg| arg.help_heading(RUN)))
        .args(progress())
        .args(accepted().into_iter().map(|arg| arg.hide(true)))
}

/// `plan`: the flags of `build`.
pub fn plan() -> Command {
    build()
        .name("plan")
        .about("Say which steps of a build would run, and why; nothing is run")
        .override_usage("hakobi plan [OPTIONS] CONTEXT")
        .after_help("Takes the options of `hakobi build`, and tells what that would do with the cache as it is.")
        .arg(choice("format", "KIND", &["text", "json"], "Of what is printed [default: text]").help_heading("Display"))
}

fn source() -> Vec<Arg> {
    vec![
        text("file", "FILE", "The Dockerfile: a path, `-` for standard input, or a URL [default: CONTEXT/Dockerfile]").short('f'),
        text("target", "STAGE", "The stage to build [default: the last]"),
        list("build-arg", "NAME[=VALUE]", "A build argument; without a value, that of the environment (several)"),
        list("build-context", "NAME=VALUE", "A further context: a directory, docker-image://, oci-layout:// or a URL (several)"),
        list("platform", "OS/ARCH[/VARIANT]", "The platforms to build for, by commas [default: the daemon's own]"),
        list("label", "NAME=VALUE", "A label of the image (several)"),
        list("annotation", "[TYPE:]NAME=VALUE", "An annotation of the image's manifest (several)"),
        text(
            "call",
            "METHOD",
            "What is done with the Dockerfile: build, check, outline or targets, with `,format=json` [default: build]",
        ),
        switch("check", "The same as --call=check: looks the Dockerfile over, builds nothing"),
    ]
}

fn result() -> Vec<Arg> {
    vec![
        list("tag", "NAME[:TAG]", "The image's name: [HOST/]NAME[:TAG] (several)").short('t'),
        switch("tag-commit", "Also tag the commit that is built, in every repository named by --tag"),
        switch("push", "Push all tags"),
        switch("load", "Put the image into the daemon, also where it is pushed"),
        list("output", "DEST", "type=local|tar|oci|docker,dest=PATH, type=image,push=true, or just a directory (several)")
            .short('o'),
        text("iidfile", "FILE", "Write the image's ID to a file"),
        text("metadata-file", "FILE", "Write what came out, in buildx's JSON"),
        text("summary", "FILE", "Write the run in Markdown [GitHub Actions: also on the step's summary page]"),
        text(
            "image-definitions",
            "FILE",
            "Write imagedefinitions.json for an ECS deploy action; what is there of other containers stays",
        ),
        list("container-name", "NAME", "The containers that take the image [default: the repository's last part] (several)"),
        text("image-detail", "FILE", "Write imageDetail.json for a blue/green deploy action"),
        text("image-env", "FILE", "Write IMAGE_URI, IMAGE_DIGEST and IMAGE_TAG for a shell, which reads them with `.`"),
        text("provenance", "VALUE", "Only `false`: images are single plain manifests"),
        text("sbom", "VALUE", "Only `false`: images are single plain manifests"),
        list("attest", "CSV", "Only with `disabled=true`: images are single plain manifests"),
    ]
}

fn cache() -> Vec<Arg> {
    let mut all = vec![
        list("cache-from", "REF|CSV", "A cache to read: an image, or BuildKit's type=registry,ref=… (several)"),
        list("cache-to", "REF|CSV", "A cache to write: type=inline, or BuildKit's type=registry,ref=… (several)"),
        transport(),
        choice(
            "strategy",
            "WHO",
            &["auto", "daemon"],
            "Who decides which steps are cached: `auto` is hakobi's plan, `daemon` is BuildKit [default: auto]",
        ),
        text(
            "max-age",
            "TIME",
            "Run a command again whose result is older, as in 12h, 7d, 2w: for updates that only running it brings",
        ),
        switch("recorded-bases", "Where a registry does not answer, take base images to be what they were in the last build"),
        switch(
            "verify",
            "Where files were laid on a base that did not come down, do it on the base too and compare; exit 1 if it differs",
        ),
        text("cache-repository", "REF", "Where cached stages are kept in a registry [default: beside the image]"),
        switch("no-cache", "Build every step"),
        list("no-cache-filter", "STAGE", "Build every step of these stages (several)"),
        switch("pull", "Ask the registry for base images, also where the daemon has them"),
    ];
    all.splice(2..2, store());
    all
}

/// Where the store is.
pub fn cache_location() -> Arg {
    text(
        "cache",
        "URL|DIR",
        "Where layers are kept: s3://BUCKET/PREFIX or a directory [default: hakobi in the user's cache directory]",
    )
}

/// The store, and whose part of it is used.
pub fn store() -> Vec<Arg> {
    vec![
        cache_location(),
        text("cache-scope", "NAME", "Whose cache is written, and read first [default: the branch or pull request]"),
        list(
            "cache-fallback",
            "NAME",
            "Whose cache is read too, in this order [default: a pull request's target, main] (several)",
        ),
        choice(
            "cache-mode",
            "MODE",
            &["read-write", "read-only", "off"],
            "What may be done with the cache [default: read-write]",
        ),
        switch("cache-required", "A fault of the cache fails the run, with exit code 4"),
    ]
}

fn run() -> Vec<Arg> {
    vec![
        list("secret", "CSV", "A secret: id=NAME,src=FILE or id=NAME,env=VARIABLE (several)"),
        list("ssh", "ID[=PATH]", "An ssh agent, or keys: default, or ID=SOCKET|KEY[,KEY] (several)"),
        text("network", "MODE", "The network: default, none or host"),
        list("add-host", "NAME:IP", "A name for /etc/hosts; host-gateway is the daemon's host (several)"),
        list("allow", "WHAT", "Allow network.host, security.insecure or device (several)"),
        list("ulimit", "NAME=SOFT[:HARD]", "A limit, like nofile=1024:2048 (several)"),
        text("shm-size", "SIZE", "The size of /dev/shm, like 128m"),
        text("cgroup-parent", "CGROUP", "The parent cgroup"),
        list(
            "resource",
            "NAME=VALUE",
            "memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems (several)",
        ),
    ]
}

/// Accepted as docker accepts them, without a line of help: older names, and what has no meaning with BuildKit.
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
