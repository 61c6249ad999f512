//! A stand-in: prints the settings, or why there are none.

use std::io::Write;
use std::process::ExitCode;

use hakobi::cli::{self, Outcome};
use hakobi::settings::Command;

fn main() -> ExitCode {
    match cli::settings() {
        Ok(settings) => {
            let text = match settings.command {
                Command::Print(text) => text,
                _ => format!("{settings:#?}\n"),
            };
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(Outcome::Shown { text, exit_code: 0 }) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(Outcome::Shown { text, exit_code }) => {
            let _ = std::io::stderr().write_all(text.as_bytes());
            ExitCode::from(exit_code)
        }
        Err(Outcome::Failed(error)) => {
            let hint = error.hint_text().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
            let _ = std::io::stderr().write_all(format!("error: {error}\n{hint}").as_bytes());
            ExitCode::from(error.kind().exit_code())
        }
    }
}
