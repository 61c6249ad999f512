//! The commands of `RUN` in the scripted daemon. The result of each is a function of the command and of the files in its state.
//! If a build uses a wrong state from the cache, the image thus shows it.
//!
//! `sum FILE` writes a hash of all files in the state and of the variables. `compile DIR FILE` writes the lines of DIR's files
//! without comments. `write FILE TEXT` writes a file, `remove PATH` removes a path, and `fail` fails. ` && ` separates commands.

use sha2::{Digest as _, Sha256};

use super::files::{Files, Kind, Node};

/// Runs a command line on these files. Returns an error if a command fails.
pub fn run(line: &str, environment: &[String], files: &mut Files, now: i64) -> Result<(), String> {
    for command in line.split(" && ") {
        let words: Vec<&str> = command.split_whitespace().collect();
        let path = |word: &str| word.trim_matches('/').to_owned();
        match &words[..] {
            ["sum", out] => {
                let text = format!("{command}\n{}\n{}\n", environment.join("\n"), files.digest());
                files.put(&path(out), Node::file(format!("{:x}\n", Sha256::digest(text)), 0o644, now));
            }
            ["compile", folder, out] => {
                let from = format!("{}/", path(folder));
                let mut text = String::new();
                for (_, node) in files.0.iter().filter(|(path, _)| path.starts_with(&from)) {
                    let Kind::File(content) = &node.kind else { continue };
                    let content = String::from_utf8_lossy(content).into_owned();
                    for line in content.lines().filter(|line| !line.starts_with('#')) {
                        text.push_str(line);
                        text.push('\n');
                    }
                }
                files.put(&path(out), Node::file(text, 0o755, now));
            }
            ["write", out, text @ ..] => files.put(&path(out), Node::file(format!("{}\n", text.join(" ")), 0o644, now)),
            ["remove", gone] => files.remove(&path(gone)),
            _ => return Err(format!("process \"/bin/sh -c {line}\" did not complete successfully: exit code: 1")),
        }
    }
    Ok(())
}
