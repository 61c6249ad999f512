//! Runs programs of the machine.

use std::io;
use std::process::{Command, Stdio};

/// Runs a program to its end. Returns its output without surrounding blanks.
///
/// # Errors
/// If it cannot be started or fails. The error has its last words.
pub fn run(program: &str, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| io::Error::new(error.kind(), format!("failed to run {program}: {error}")))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no message");
        let what = arguments.first().map(|first| format!("{program} {first}")).unwrap_or_default();
        return Err(io::Error::other(format!("{what} failed: {last}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
