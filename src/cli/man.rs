//! `hakobi man`: manual pages, made of what `--help` prints.

use clap::{Arg, ArgMatches, Command as Clap};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::command;
use crate::error::{Error, Result};
use crate::settings::Command;

/// `man [COMMAND]…`: `hakobi man cache ls` is the page of `hakobi cache ls`.
pub fn man(matches: &ArgMatches) -> Result<Command> {
    let mut hakobi = command::hakobi();
    // Gives the commands their full names.
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
        // clap_mangen's own would list every switch.
        .override_usage(usage.trim_start_matches("Usage: ").to_owned())
        // Its heading would be EXTRA. A sentence that ends a line ends a paragraph.
        .long_about(format!("{about}.\n\n{}", more.replace(".\n", ".\n\n")))
        .after_help(None::<&str>)
        // At the foot of the page.
        .version(None::<&str>)
        .mut_args(with_values);
    let man = Man::new(command)
        // Empty would leave the argument out, and the next one would be taken for the date.
        .date("\"\"")
        .source(concat!("hakobi ", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    let mut page = Vec::new();
    // Into memory: it cannot fail.
    let _ = man.render(&mut page);
    let mut page = String::from_utf8_lossy(&page).into_owned();
    if !is_whole {
        page.push_str(&Roff::new().control("SH", ["SEE ALSO"]).text([bold("hakobi"), roman("(1)")]).to_roff());
    }
    // A bare one is an opening quotation mark to groff.
    page.replace('`', "\\(ga")
}

/// The values of a choice on one line, as `--help` has them, and not as a list down the page.
fn with_values(arg: Arg) -> Arg {
    if arg.is_hide_possible_values_set() || arg.is_hide_set() {
        return arg;
    }
    let values: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let Some(help) = arg.get_help().filter(|_| !values.is_empty()).map(ToString::to_string) else { return arg };
    arg.help(format!("{help} [possible values: {}]", values.join(", "))).hide_possible_values(true)
}
