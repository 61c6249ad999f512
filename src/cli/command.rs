//! Declares the command line for clap: the commands, and the flags that several of them share. `build_flags` declares those of `build`.

use clap::builder::{EnumValueParser, PossibleValuesParser};
use clap::{Arg, ArgAction, Command};
use clap_complete::Shell;

use super::given::{list, switch, text};
use super::shared::{progress, pushes, registries, transport};
use super::{build_flags, carry, own_daemon, reports};

/// Returns `hakobi` with all its commands.
pub fn hakobi() -> Command {
    Command::new("hakobi")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Fast docker build and push for CI machines that start empty: caches image layers between runs")
        .after_help(
            "Every option can also be set by an environment variable: --if-tag-exists is HAKOBI_IF_TAG_EXISTS (one value per line for lists).\n\
             Exit codes: 0 done, 1 the build failed, 2 usage, 3 push or registry, 4 cache,\n\
             5 no usable Docker daemon, 130/143 interrupted.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .args_override_self(true)
        .arg(
            text("host", "URL", "Address of the Docker daemon [default: DOCKER_HOST, DOCKER_CONTEXT, or docker's current context]")
                .short('H')
                .global(true),
        )
        .arg(
            switch("debug", "Show what hakobi decides and why, its stages and its requests [HAKOBI_LOG: levels, by module]")
                .global(true),
        )
        .subcommand(build_flags::build())
        .subcommand(build_flags::plan())
        .subcommand(push())
        .subcommand(carry::save_command())
        .subcommand(carry::restore_command())
        .subcommand(carry::import_command())
        .subcommand(carry::export_command())
        .subcommand(carry::cache_command())
        .subcommand(promote())
        .subcommand(init())
        .subcommand(doctor())
        .subcommand(login())
        .subcommand(completions())
        .subcommand(man())
}

fn push() -> Command {
    Command::new("push")
        .about("Push images from the daemon to registries")
        .args_override_self(true)
        .arg(
            Arg::new("image")
                .value_name("IMAGE")
                .help("Image in the daemon, with its tag")
                .required(true)
                .action(ArgAction::Append),
        )
        .args(reports::flags())
        .arg(transport())
        .args(progress())
        .args(pushes())
        .args(registries())
}

fn promote() -> Command {
    Command::new("promote")
        .about("Tag an image in a registry again, to release it or to roll back")
        .after_help("Copies the image by digest, also to another repository or account. Needs no build and no Docker daemon.")
        .args_override_self(true)
        .arg(Arg::new("source").value_name("SRC").help("Image: HOST/NAME:TAG or HOST/NAME@sha256:…").required(true))
        .arg(
            Arg::new("target")
                .value_name("TAG")
                .help("Tag in the same repository (`prod`), or a full reference (HOST/OTHER:TAG)")
                .required_unless_present("list")
                .conflicts_with("list")
                .action(ArgAction::Append),
        )
        .arg(switch(
            "list",
            "List the image that SRC points to now and those before, each with the command that rolls back to it",
        ))
        .args(progress())
        // `promote` never compresses layers.
        .args(pushes().into_iter().filter(|arg| arg.get_id() != "compression"))
        .args(registries())
}

fn doctor() -> Command {
    Command::new("doctor")
        .about("Check what a run needs (daemon, registry, cache, clock, disk space) and show how to fix problems")
        .after_help(
            "Pass it the flags of your build. It writes one small object to the cache and removes it, and changes nothing else.",
        )
        .args_override_self(true)
        .arg(list("tag", "NAME[:TAG]", "Image whose repository to check (repeatable)").short('t'))
        .args(build_flags::store())
        .args(own_daemon::flags())
        .arg(transport())
        .args(registries())
}

fn init() -> Command {
    Command::new("init")
        .about("Write a CI configuration file for this project")
        .args_override_self(true)
        .arg(Arg::new("ci").value_name("CI").help("CI system").required(true).value_parser(PossibleValuesParser::new([
            "codebuild",
            "travis",
            "jenkins",
            "github",
            "gitlab",
        ])))
        .arg(text("repository", "HOST/NAME", "Repository to push the image to"))
        .arg(text("bucket", "NAME", "S3 bucket for the cache"))
        .arg(switch("force", "Overwrite an existing file"))
}

fn login() -> Command {
    Command::new("login")
        .about("Check the credentials for a registry, and write them to Docker's config.json with --write")
        .after_help(
            "A link to or copy of this program named `docker-credential-hakobi` is a Docker credential helper: with\n\
             {\"credHelpers\":{\"HOST\":\"hakobi\"}} in Docker's config.json, docker signs in to ECR by itself.",
        )
        .args_override_self(true)
        .arg(Arg::new("registry").value_name("HOST").help("Registry: HOST or HOST:PORT").required(true))
        .arg(switch("write", "Write the credentials to Docker's config.json"))
        .args(registries())
}

fn completions() -> Command {
    Command::new("completions")
        .about("Print a shell script that completes commands and options")
        .arg(Arg::new("shell").value_name("SHELL").help("Shell").required(true).value_parser(EnumValueParser::<Shell>::new()))
}

fn man() -> Command {
    Command::new("man")
        .about("Print the manual page of hakobi or of one of its commands")
        .after_help("To read a page: `hakobi man build | man -l -`.")
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .help("Command, for example `hakobi man cache ls` [default: hakobi itself]")
                .action(ArgAction::Append),
        )
}

/// Returns the command line of the Docker credential helper.
pub fn credential_helper() -> Command {
    Command::new("docker-credential-hakobi")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Docker credential helper for ECR, called by docker")
        .arg(
            Arg::new("action")
                .required(true)
                .value_parser(PossibleValuesParser::new(["get", "list", "store", "erase", "version"]))
                .help("Action that docker requests"),
        )
}
