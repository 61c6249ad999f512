//! What `RUN` can do in the scripted daemon: a few words whose results are functions of the command and of the files below it, so
//! that a state that was taken from the wrong cache shows in the image.
//!
//! `sum FILE` writes what all files below and the variables come to. `compile DIR FILE` writes the lines of DIR's files that are no
//! comments. `write FILE TEXT`, `remove PATH` and `fail` do what they say. ` && ` stands between two of them.

use sha2::{Digest as _, Sha256};

use super::files::{Files, Kind, Node};

/// Runs a command line on these files.
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
