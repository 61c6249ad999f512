//! `hakobi man`: makes manual pages from the text of `--help`.

use clap::{Arg, ArgMatches, Command as Clap};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::command;
use crate::error::{Error, Result};
use crate::settings::Command;

/// Resolves `man [COMMAND]…`: `hakobi man cache ls` prints the page of `hakobi cache ls`.
pub fn man(matches: &ArgMatches) -> Result<Command> {
    let mut hakobi = command::hakobi();
    // This sets the full names of the commands.
    hakobi.build();
    let mut found = &hakobi;
    for word in matches.get_many::<String>("command").unwrap_or_default() {
        found = found.find_subcommand(word).ok_or_else(|| {
            let name = found.get_bin_name().unwrap_or("hakobi");
            Error::usage(format!("unknown command `{word}` of `{name}`")).hint(format!("list the commands with `{name} --help`"))
        })?;
    }
    Ok(Command::Print(page(found.clone())))
}

fn page(mut command: Clap) -> String {
    let usage = command.render_usage().to_string();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let more = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let is_whole = command.get_name() == "hakobi";
    let command = command
        // clap_mangen's own usage line would list every flag.
        .override_usage(usage.trim_start_matches("Usage: ").to_owned())
        // clap_mangen would use the heading EXTRA. A full stop at the end of a line ends a paragraph.
        .long_about(format!("{about}.\n\n{}", more.replace(".\n", ".\n\n")))
        .after_help(None::<&str>)
        // Without this, clap_mangen adds a VERSION section. The version is at the foot of the page.
        .version(None::<&str>)
        .mut_args(with_values);
    let man = Man::new(command)
        // roff drops an empty argument, and would read the next argument as the date.
        .date("\"\"")
        .source(concat!("hakobi ", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    let mut page = Vec::new();
    // Writing to memory never fails.
    let _ = man.render(&mut page);
    let mut page = String::from_utf8_lossy(&page).into_owned();
    if !is_whole {
        page.push_str(&Roff::new().control("SH", ["SEE ALSO"]).text([bold("hakobi"), roman("(1)")]).to_roff());
    }
    // groff prints a plain backtick as an opening quotation mark.
    page.replace('`', "\\(ga")
}

/// Shows the possible values in one line, like `--help`, instead of a vertical list.
fn with_values(arg: Arg) -> Arg {
    if arg.is_hide_possible_values_set() || arg.is_hide_set() {
        return arg;
    }
    let values: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let Some(help) = arg.get_help().filter(|_| !values.is_empty()).map(ToString::to_string) else { return arg };
    arg.help(format!("{help} [possible values: {}]", values.join(", "))).hide_possible_values(true)
}
