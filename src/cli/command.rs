//! The command line as clap sees it: commands, and the flags that several of them share. `build`'s own are next door.

use clap::builder::{EnumValueParser, PossibleValuesParser};
use clap::{Arg, ArgAction, Command};
use clap_complete::Shell;

use super::given::{list, switch, text};
use super::shared::{progress, pushes, registries, transport};
use super::{build_flags, carry, reports};

/// `hakobi` with all its commands.
pub fn hakobi() -> Command {
    Command::new("hakobi")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Carries image layers between CI runs: a fast docker build and push for machines that start empty")
        .after_help(
            "Every option can also be given as a variable: --if-tag-exists is HAKOBI_IF_TAG_EXISTS (lists by newline).\n\
             Exit codes: 0 done, 1 the build failed, 2 usage, 3 push or registry, 4 cache,\n\
             5 no usable Docker daemon, 130/143 interrupted.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .args_override_self(true)
        .arg(
            text("host", "URL", "The Docker daemon [default: DOCKER_HOST, DOCKER_CONTEXT, or docker's current context]")
                .short('H')
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
        .about("Push images of the daemon")
        .args_override_self(true)
        .arg(
            Arg::new("image")
                .value_name("IMAGE")
                .help("An image of the daemon, with its tag")
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
        .about("Give an image in a registry another tag: a release, or the way back")
        .after_help("Copies by digest, also to another repository or account; nothing is built and no daemon is asked.")
        .args_override_self(true)
        .arg(Arg::new("source").value_name("SRC").help("The image: HOST/NAME:TAG or HOST/NAME@sha256:…").required(true))
        .arg(
            Arg::new("target")
                .value_name("TAG")
                .help("A tag in the same repository (`prod`), or a full reference (HOST/OTHER:TAG)")
                .required_unless_present("list")
                .conflicts_with("list")
                .action(ArgAction::Append),
        )
        .arg(switch("list", "Say what SRC stands for and stood for before, each with the line that rolls back to it"))
        .args(progress())
        // It moves layers as they are.
        .args(pushes().into_iter().filter(|arg| arg.get_id() != "compression"))
        .args(registries())
}

fn doctor() -> Command {
    Command::new("doctor")
        .about("Try what a run needs: daemon, registry, cache, clock, room; and say how to mend what is wrong")
        .after_help(
            "Give it the flags of your build. It writes one small object to the cache and removes it; nothing else is changed.",
        )
        .args_override_self(true)
        .arg(list("tag", "NAME[:TAG]", "An image whose repository is tried (several)").short('t'))
        .args(build_flags::store())
        .arg(transport())
        .args(registries())
}

fn init() -> Command {
    Command::new("init")
        .about("Write a CI's file for this project")
        .args_override_self(true)
        .arg(Arg::new("ci").value_name("CI").help("The CI").required(true).value_parser(PossibleValuesParser::new([
            "codebuild",
            "travis",
            "jenkins",
            "github",
        ])))
        .arg(text("repository", "HOST/NAME", "The repository that the image goes to"))
        .arg(text("bucket", "NAME", "The bucket that layers are kept in"))
        .arg(switch("force", "Replace a file that is there"))
}

fn login() -> Command {
    Command::new("login")
        .about("Try the credentials for a registry, and keep them in Docker's config.json if asked to")
        .after_help(
            "A link or copy of this program named `docker-credential-hakobi` is a credential helper: with\n\
             {\"credHelpers\":{\"HOST\":\"hakobi\"}} in Docker's config.json, docker itself signs in to ECR.",
        )
        .args_override_self(true)
        .arg(Arg::new("registry").value_name("HOST").help("The registry: HOST or HOST:PORT").required(true))
        .arg(switch("write", "Write what was found into Docker's config.json"))
        .args(registries())
}

fn completions() -> Command {
    Command::new("completions")
        .about("Print a script that completes commands and options in a shell")
        .arg(Arg::new("shell").value_name("SHELL").help("The shell").required(true).value_parser(EnumValueParser::<Shell>::new()))
}

fn man() -> Command {
    Command::new("man")
        .about("Print the manual page of hakobi or of one of its commands")
        .after_help("To read one: `hakobi man build | man -l -`.")
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .help("The command, as in `hakobi man cache ls` [default: hakobi itself]")
                .action(ArgAction::Append),
        )
}

/// The command line of a Docker credential helper.
pub fn credential_helper() -> Command {
    Command::new("docker-credential-hakobi")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Docker's credential helper for ECR; docker calls it")
        .arg(
            Arg::new("action")
                .required(true)
                .value_parser(PossibleValuesParser::new(["get", "list", "store", "erase", "version"]))
                .help("What docker asks"),
        )
}
