//! Declares and reads flags: a few kinds of clap arguments, and the `HAKOBI_*` variables as their defaults.

use std::collections::BTreeSet;

use clap::builder::{BoolValueParser, PossibleValuesParser, TypedValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::environment::Environment;
use super::words;

/// Declares a flag with a text. The last value overrides the others, as in Docker.
pub fn text(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    // Docker accepts any next argument as the value, even with a dash at its start: `--memory-swap -1`.
    Arg::new(name).long(name).value_name(value).help(help).action(ArgAction::Set).allow_hyphen_values(true)
}

/// Declares a flag that may occur several times.
pub fn list(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    text(name, value, help).action(ArgAction::Append)
}

/// Declares a switch: `--push`, or `--push=false` as in Docker.
pub fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .help(help)
        .action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_name("BOOL")
        .value_parser(BoolTexts)
        .hide_possible_values(true)
}

/// Declares a flag whose value is one of a few texts.
pub fn choice(name: &'static str, value: &'static str, values: &'static [&'static str], help: &'static str) -> Arg {
    text(name, value, help).allow_hyphen_values(false).value_parser(PossibleValuesParser::new(values))
}

/// A parser of Go's booleans for clap.
#[derive(Clone)]
struct BoolTexts;

impl TypedValueParser for BoolTexts {
    type Value = bool;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &std::ffi::OsStr) -> Result<bool, clap::Error> {
        match value.to_str().and_then(words::boolean) {
            Some(value) => Ok(value),
            None => BoolValueParser::new().parse_ref(command, arg, value),
        }
    }
}

/// Returns the variable of a flag: `--cache-from` has HAKOBI_CACHE_FROM.
pub fn variable_of(flag: &str) -> String {
    format!("HAKOBI_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// Sets the `HAKOBI_*` variables as defaults of the flags, and returns the names of the flags that have a variable.
///
/// A flag on the command line overrides its variable. An empty variable counts as not set. Lists are separated by newlines.
/// Defaults take no part in clap's conflicts. `--help` does not print them, because they may be secret.
pub fn with_variables(command: Command, environment: &Environment) -> (Command, BTreeSet<String>) {
    let mut used = BTreeSet::new();
    let command = put_under(command, environment, &mut used);
    (command, used)
}

fn put_under(mut command: Command, environment: &Environment, used: &mut BTreeSet<String>) -> Command {
    command = command.mut_args(|arg| {
        let Some(name) = arg.get_long().map(str::to_owned) else { return arg };
        let Some(value) = environment.get(&variable_of(&name)) else { return arg };
        let values: Vec<String> = match arg.get_action() {
            ArgAction::Append => value.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect(),
            _ => vec![value.to_owned()],
        };
        used.insert(name);
        arg.default_values(values).hide_default_value(true)
    });
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, |sub| put_under(sub, environment, used));
    }
    command
}

/// The parsed arguments of a command.
#[derive(Clone, Copy)]
pub struct Given<'a>(pub &'a ArgMatches);

impl Given<'_> {
    /// Returns a text. Returns `None` if it is empty or not given.
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.try_get_one::<String>(name).ok().flatten().filter(|value| !value.is_empty()).cloned()
    }

    /// Returns the texts of a list in their order, without empty ones, as in buildx.
    pub fn list(&self, name: &str) -> Vec<String> {
        let values = self.0.try_get_many::<String>(name).ok().flatten().unwrap_or_default();
        values.filter(|value| !value.is_empty()).cloned().collect()
    }

    /// Returns whether a switch is on.
    pub fn switch(&self, name: &str) -> bool {
        self.0.try_get_one::<bool>(name).ok().flatten().copied().unwrap_or(false)
    }

    /// Returns whether the flag is on the command line itself, and not from a variable.
    pub fn on_command_line(&self, name: &str) -> bool {
        self.0.try_contains_id(name).is_ok_and(|there| there) && self.0.value_source(name) == Some(ValueSource::CommandLine)
    }
}
