//! Credential helpers: `docker-credential-NAME get` (docker/docker-credential-helpers, "Development").

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::Credential;
use crate::registry::error::{Error, Kind, Result};

/// The time limit of a helper. A helper may ask a user, or use a slow network.
const LONGEST: Duration = Duration::from_secs(90);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks a helper for the credentials of a server. Returns `None` if it has none.
pub(super) async fn get(name: &str, server: &str) -> Result<Option<Credential>> {
    let program = format!("docker-credential-{name}");
    let failed =
        |cause: &str| Error::new(Kind::Credentials, format!("get credentials for {server} from {program}"), "").because(cause);
    // The name comes from config.json. A slash would make it a path.
    if name.contains(['/', '\\']) {
        return Err(failed("the name of the helper in config.json must not contain a slash"));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => failed("config.json names it, but it is not in PATH"),
            _ => failed(&error.to_string()),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input gives the reason on its output.
        let _ = stdin.write_all(server.as_bytes()).await;
        let _ = stdin.write_all(b"\n").await;
    }
    let output = tokio::time::timeout(LONGEST, child.wait_with_output())
        .await
        .map_err(|_| failed("no answer in 90 s"))?
        .map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        // Helpers print errors to standard output.
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let said = said.trim();
        if said.contains("credentials not found in native keychain") || said.contains("no credentials server URL") {
            return Ok(None);
        }
        return Err(failed(said.lines().next().unwrap_or("it failed without a message")));
    }
    let answer: Answer = serde_json::from_slice(&output.stdout).map_err(|_| failed("its answer is not the expected JSON"))?;
    Ok(match (answer.username.as_str(), answer.secret.is_empty()) {
        (_, true) => None,
        ("<token>", false) => Some(Credential::IdentityToken(answer.secret)),
        _ => Some(Credential::Basic { username: answer.username, password: answer.secret }),
    })
}
