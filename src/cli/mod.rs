//! The command line: reads flags, the environment and Docker's configuration once, and returns [`Settings`].
//!
//! Only this module uses clap and the environment. `command` and `build_flags` declare the flags, the other files resolve them.
//! Each flag has the meaning that `docker build` gives it.

mod build;
mod build_flags;
mod cache_mounts;
mod caches;
mod carry;
mod command;
mod context;
mod daemon;
mod docker_config;
mod environment;
mod frontend;
mod given;
mod hand_off;
mod man;
mod mounts;
mod others;
mod outputs;
mod own_daemon;
mod own_process;
mod plugin;
mod registries;
mod reports;
mod shared;
mod store;
mod words;

#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use self::docker_config::DockerConfig;
pub use self::environment::Environment;
use self::given::Given;
pub use self::own_process::OwnProcess;
use crate::error::{Error, Result};
use crate::settings::{Command, DaemonEndpoint, ProgressMode, RegistrySettings, Settings, Strategy, Transport};

/// The reason why there are no settings.
#[derive(Debug)]
pub enum Outcome {
    /// A text to show, with an exit code. `--help` and `--version` write to standard output and exit with 0. An invalid command
    /// line writes to standard error and exits with 2.
    Shown {
        /// The text, with its final newline, and with colours if the stream is a terminal.
        text: String,
        /// 0 or 2.
        exit_code: u8,
    },
    /// Flags that contradict each other or the file system: a [`crate::error::Kind::Usage`] with a hint.
    Failed(Error),
}

impl From<Error> for Outcome {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Returns the process of hakobi's own that this one is to be, which needs no settings. Returns `None` for the commands of users.
#[must_use]
pub fn own_process() -> Option<OwnProcess> {
    own_process::own_process(std::env::args_os())
}

/// Reads the settings of this process.
///
/// # Errors
/// See [`parse`].
pub fn settings() -> Result<Settings, Outcome> {
    let environment =
        Environment::of_process().map_err(|error| Error::usage("failed to find the working directory").because(&error))?;
    parse(std::env::args_os(), &environment)
}

/// Resolves a command line. The first argument is the program's name. Flags override `HAKOBI_*` variables.
///
/// # Errors
/// See [`Outcome`].
pub fn parse(args: impl IntoIterator<Item = OsString>, environment: &Environment) -> Result<Settings, Outcome> {
    let args: Vec<OsString> = args.into_iter().collect();
    let name = args.first().and_then(|name| Path::new(name).file_stem());
    if name.is_some_and(|name| name == "docker-credential-hakobi") {
        let matches = command::credential_helper()
            .try_get_matches_from(args)
            .map_err(|error| shown(error, &BTreeSet::new(), environment))?;
        let command = others::credential_helper(Given(&matches), environment)?;
        return Ok(without_daemon(command, environment));
    }
    let args = match plugin::arguments(args) {
        plugin::Called::Asked(text) => return Err(Outcome::Shown { text, exit_code: 0 }),
        plugin::Called::With(args) => args,
    };
    let (command, variables) = given::with_variables(command::hakobi(), environment);
    let matches = command.try_get_matches_from(args).map_err(|error| shown(error, &variables, environment))?;
    match matches.subcommand() {
        Some((name, matches)) => Ok(resolve(name, matches, environment)?),
        // clap already requires a command. This case only satisfies the type.
        None => Err(Error::usage("the command is missing").hint("list the commands with `hakobi --help`").into()),
    }
}

fn resolve(name: &str, matches: &ArgMatches, environment: &Environment) -> Result<Settings> {
    let given = Given(matches);
    match name {
        "completions" => return Ok(without_daemon(others::completions(matches)?, environment)),
        "man" => return Ok(without_daemon(man::man(matches)?, environment)),
        _ => {}
    }
    let mut warnings = Vec::new();
    let registries = registries::registries(given, environment)?;
    let config = DockerConfig::read(environment.docker_config(), &mut warnings);
    let daemon = match name {
        // These commands use no daemon, so a missing context must not stop them.
        "login" | "promote" | "init" | "import" | "export" | "cache" => default_daemon(),
        _ => daemon::endpoint(given.text("host").as_deref(), environment, &config)?,
    };
    let log = log(given, environment);
    let progress = match progress(given, environment)? {
        // The live display would be drawn again for each debug line.
        ProgressMode::Auto if log.is_some() => ProgressMode::Plain,
        progress => progress,
    };
    let command = match name {
        "build" => {
            let around = build::Around { environment, config: &config, daemon: &daemon };
            Command::Build(Box::new(build::settings(given, &around, &mut warnings)?))
        }
        "plan" => {
            let around = build::Around { environment, config: &config, daemon: &daemon };
            let mut build = build::settings(given, &around, &mut warnings)?;
            build.strategy = Strategy::Auto;
            Command::Plan { build: Box::new(build), json: given.text("format").as_deref() == Some("json") }
        }
        "push" => others::push(given, environment)?,
        "save" => carry::save(given, environment)?,
        "restore" => carry::restore(given, environment)?,
        "import" => carry::import(given, environment)?,
        "export" => carry::export(given, environment)?,
        "cache" => carry::cache_of(matches, environment)?,
        "promote" => others::promote(given, environment)?,
        "init" => others::init(given, environment)?,
        "doctor" => others::doctor(given, environment)?,
        _ => others::login(given)?,
    };
    let color = environment.color(environment.stderr_is_terminal);
    Ok(Settings { progress, color, log, daemon, transport: transport(given), registries, warnings, command })
}

fn transport(given: Given<'_>) -> Transport {
    match given.text("transport").as_deref() {
        Some("registry") => Transport::Registry,
        Some("archive") => Transport::Archive,
        _ => Transport::Auto,
    }
}

/// Returns the log levels. `HAKOBI_LOG` overrides `--debug`.
fn log(given: Given<'_>, environment: &Environment) -> Option<String> {
    let debug = given.switch("debug").then(|| "debug".to_owned());
    environment.get("HAKOBI_LOG").map(str::to_owned).or(debug)
}

fn default_daemon() -> DaemonEndpoint {
    DaemonEndpoint { url: daemon::DEFAULT_URL.to_owned(), tls: None, origin: "default".to_owned() }
}

fn without_daemon(command: Command, environment: &Environment) -> Settings {
    Settings {
        progress: ProgressMode::Quiet,
        color: false,
        log: None,
        daemon: default_daemon(),
        transport: Transport::Auto,
        registries: RegistrySettings { docker_config: environment.docker_config(), ..RegistrySettings::default() },
        warnings: Vec::new(),
        command,
    }
}

/// Returns the progress mode. `-q` means `--progress quiet`. With `auto`, BUILDKIT_PROGRESS decides, as in buildx.
fn progress(given: Given<'_>, environment: &Environment) -> Result<ProgressMode> {
    let mode = given.text("progress");
    let chosen = mode.as_deref().filter(|mode| *mode != "auto");
    if given.switch("quiet") {
        match (chosen, given.on_command_line("progress"), given.on_command_line("quiet")) {
            (None | Some("quiet"), _, _) | (Some(_), false, true) => return Ok(ProgressMode::Quiet),
            (Some(mode), true, true) | (Some(mode), false, false) => {
                return Err(Error::usage(format!("--quiet and --progress {mode} cannot be used together")));
            }
            // The flag --progress overrides the variable HAKOBI_QUIET.
            (Some(_), true, false) => {}
        }
    }
    let (mode, origin) = match chosen {
        Some(mode) => (mode, "--progress"),
        None => (environment.get("BUILDKIT_PROGRESS").unwrap_or("auto"), "BUILDKIT_PROGRESS"),
    };
    match mode {
        "auto" => Ok(ProgressMode::Auto),
        "plain" => Ok(ProgressMode::Plain),
        "tty" => Ok(ProgressMode::Tty),
        "quiet" | "none" => Ok(ProgressMode::Quiet),
        "rawjson" => Ok(ProgressMode::RawJson),
        other => Err(Error::usage(format!("invalid value `{other}` for {origin}"))
            .hint(format!("use one of {}", shared::PROGRESS.join(", ")))),
    }
}

/// Returns clap's own text. If the value of the flag came from a variable, a note names the variable.
fn shown(error: clap::Error, variables: &BTreeSet<String>, environment: &Environment) -> Outcome {
    let exit_code = if error.use_stderr() { 2 } else { 0 };
    let terminal = if exit_code == 0 { environment.stdout_is_terminal } else { environment.stderr_is_terminal };
    let rendered = error.render();
    let mut text = if environment.color(terminal) { rendered.ansi().to_string() } else { rendered.to_string() };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => {
            flag.split(['=', ' ', '[']).next().unwrap_or_default().trim_start_matches("--").to_owned()
        }
        _ => String::new(),
    };
    if matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) && variables.contains(&flag) {
        text.push_str(&format!(
            "note: the value of --{flag} comes from the environment variable {}\n",
            given::variable_of(&flag)
        ));
    }
    Outcome::Shown { text, exit_code }
}
