//! How flags are declared and read: a few shapes of clap arguments, `HAKOBI_*` put under them, and what was given.

use std::collections::BTreeSet;

use clap::builder::{BoolValueParser, PossibleValuesParser, TypedValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::environment::Environment;
use super::words;

/// A flag with a text after it; the last one given counts, as in Docker.
pub fn text(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    // Docker takes whatever follows as the value, a dash in front or not: `--memory-swap -1`.
    Arg::new(name).long(name).value_name(value).help(help).action(ArgAction::Set).allow_hyphen_values(true)
}

/// A flag that may be given several times.
pub fn list(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    text(name, value, help).action(ArgAction::Append)
}

/// A switch: `--push`, and `--push=false` as Docker takes it.
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

/// A text out of a few.
pub fn choice(name: &'static str, value: &'static str, values: &'static [&'static str], help: &'static str) -> Arg {
    text(name, value, help).allow_hyphen_values(false).value_parser(PossibleValuesParser::new(values))
}

/// Go's booleans for clap.
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

/// The variable that stands for a flag: `--cache-from` is HAKOBI_CACHE_FROM.
pub fn variable_of(flag: &str) -> String {
    format!("HAKOBI_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// Puts `HAKOBI_*` under the flags as their defaults: a flag on the command line wins, an empty variable is none, lists go by
/// newline. As defaults they are neither printed by `--help` (they may be secret) nor take part in clap's conflicts.
///
/// Returns the names of flags that a variable was put under.
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

/// What was given to a command.
#[derive(Clone, Copy)]
pub struct Given<'a>(pub &'a ArgMatches);

impl Given<'_> {
    /// A text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.try_get_one::<String>(name).ok().flatten().filter(|value| !value.is_empty()).cloned()
    }

    /// All texts of a list, in the order given. Empty ones are left out, as buildx does.
    pub fn list(&self, name: &str) -> Vec<String> {
        let values = self.0.try_get_many::<String>(name).ok().flatten().unwrap_or_default();
        values.filter(|value| !value.is_empty()).cloned().collect()
    }

    /// A switch.
    pub fn switch(&self, name: &str) -> bool {
        self.0.try_get_one::<bool>(name).ok().flatten().copied().unwrap_or(false)
    }

    /// Whether the flag stands on the command line itself.
    pub fn on_command_line(&self, name: &str) -> bool {
        self.0.try_contains_id(name).is_ok_and(|there| there) && self.0.value_source(name) == Some(ValueSource::CommandLine)
    }
}
