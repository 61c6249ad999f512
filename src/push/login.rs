//! `hakobi login`: tries the login to a registry, writes the credentials if requested, or answers Docker as a credential helper.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::domain::RegistryHost;
use crate::error::{Error, Result};
use crate::registry::{Credential, Found, Registries, canonical_host};

/// Tries a registry's credentials. Returns where they were found, or `None` if there are none and the registry requires none.
///
/// # Errors
/// If the registry refuses them or cannot be reached.
pub async fn check(registries: &Registries, host: &RegistryHost) -> Result<Option<Found>> {
    Ok(registries.check_login(host).await?)
}

/// Tries a registry's credentials and writes them into Docker's `config.json` in this directory, without changing its other
/// entries. Returns the file's path.
///
/// # Errors
/// If there are no credentials, a credential store takes precedence over the file, or the file cannot be written.
pub async fn write(registries: &Registries, host: &RegistryHost, docker_config: &Path) -> Result<PathBuf> {
    let Some(found) = check(registries, host).await? else {
        return Err(Error::push(format!("found no credentials for {host}")));
    };
    let path = docker_config.join("config.json");
    let failed = |error: &dyn std::fmt::Display| Error::push(format!("failed to write {}: {error}", path.display()));
    let key = if host.is_docker_hub() { "https://index.docker.io/v1/" } else { host.as_str() };
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => b"{}".to_vec(),
        Err(error) => return Err(failed(&error)),
    };
    let mut config: Map<String, Value> = serde_json::from_slice(&text).map_err(|_| failed(&"invalid format"))?;
    let helper = config.get("credHelpers").and_then(|helpers| helpers.get(key)).or_else(|| config.get("credsStore"));
    if let Some(helper) = helper.and_then(Value::as_str).filter(|helper| !helper.is_empty()) {
        return Err(Error::push(format!(
            "docker uses docker-credential-{helper} for {host} and would ignore the credentials in {}",
            path.display()
        ))
        .hint("set DOCKER_CONFIG to another directory, or remove the helper from config.json"));
    }
    let entry = match &found.credential {
        Credential::Basic { username, password } => {
            json!({ "auth": base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}")) })
        }
        Credential::IdentityToken(token) => json!({ "identitytoken": token }),
        Credential::RegistryToken(token) => json!({ "registrytoken": token }),
    };
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    match auths.as_object_mut() {
        Some(auths) => _ = auths.insert(key.to_owned(), entry),
        None => return Err(failed(&"`auths` is not an object")),
    }
    replace(&path, &config).map_err(|error| failed(&error))?;
    Ok(path)
}

/// Writes a temporary file, then renames it: a reader sees the old or the new file. Only its owner may read it.
fn replace(path: &Path, config: &Map<String, Value>) -> std::io::Result<()> {
    // A symbolic link (as to a dotfiles checkout) stays a link.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::Builder::new().prefix(".hakobi-config-").tempfile_in(directory)?;
    let text = serde_json::to_vec_pretty(config).map_err(std::io::Error::other)?;
    file.write_all(&text)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    Ok(())
}

/// Returns the answer of a credential helper for standard output, if Docker asks for the credentials of a server
/// (docker/docker-credential-helpers, `get`).
///
/// # Errors
/// If there are no credentials, in the words that Docker expects.
pub async fn helper(registries: &Registries, server: &str) -> Result<String> {
    let host = canonical_host(server);
    // Asks only AWS, because config.json may name this helper itself.
    match registries.aws_login(&host).await {
        Ok(Some(Credential::Basic { username, password })) => {
            Ok(json!({ "ServerURL": server, "Username": username, "Secret": password }).to_string())
        }
        Ok(_) => Err(Error::push("credentials not found in native keychain")),
        Err(error) => Err(error.into()),
    }
}
