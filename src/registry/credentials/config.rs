//! Docker's `config.json` (docker/cli `cli/config/configfile`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;

use super::credential::hostname;
use super::{Credential, DOCKER_HUB_KEY, Found, helper, key_of};
use crate::domain::RegistryHost;
use crate::registry::error::{Error, Kind, Result};

/// The part of `config.json` that contains credentials.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::registry) struct DockerConfig {
    auths: BTreeMap<String, Option<Entry>>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
    #[serde(skip)]
    path: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry(…)")
    }
}

impl DockerConfig {
    /// Reads `config.json` in this folder. A missing file counts as empty.
    pub(in crate::registry) fn load(directory: Option<&Path>) -> Result<Self> {
        let Some(directory) = directory else { return Ok(Self::default()) };
        let path = directory.join("config.json");
        let bad = |cause: &str| {
            Error::new(Kind::Credentials, format!("read Docker's credentials in {}", path.display()), "").because(cause)
        };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(bad(&error.to_string())),
        };
        // serde's message would contain the wrong value, which may be a password.
        let mut config: Self = serde_json::from_slice(&text)
            .map_err(|error| bad(&format!("invalid format (line {}, column {})", error.line(), error.column())))?;
        config.path = path;
        Ok(config)
    }

    /// Returns the name of the helper that stores this registry's credentials. Returns `None` if there is none.
    pub(in crate::registry) fn helper_of(&self, host: &RegistryHost) -> Option<&str> {
        let key = key_of(host);
        let own = self
            .cred_helpers
            .get(key)
            .or_else(|| self.cred_helpers.iter().find(|(name, _)| self.matches(name, host)).map(|(_, helper)| helper));
        own.or(Some(&self.creds_store)).filter(|name| !name.is_empty()).map(String::as_str)
    }

    fn matches(&self, key: &str, host: &RegistryHost) -> bool {
        if host.is_docker_hub() {
            return matches!(hostname(key), "index.docker.io" | "docker.io" | "registry-1.docker.io");
        }
        hostname(key) == host.as_str()
    }

    /// Returns the credentials of a registry, from its helper or from the file. Returns `None` if there are none.
    pub(in crate::registry) async fn lookup(&self, host: &RegistryHost) -> Result<Option<Found>> {
        if let Some(name) = self.helper_of(host)
            && let Some(credential) = helper::get(name, key_of(host)).await?
        {
            return Ok(Some(Found { credential, origin: format!("docker-credential-{name}") }));
        }
        let exact = self.auths.get(key_of(host)).filter(|_| !host.is_docker_hub());
        let hub = self.auths.get(DOCKER_HUB_KEY).filter(|_| host.is_docker_hub());
        let near = || self.auths.iter().find(|(key, _)| self.matches(key, host)).map(|(_, entry)| entry);
        let Some(Some(entry)) = exact.or(hub).or_else(near) else { return Ok(None) };
        let credential = entry.credential().map_err(|cause| {
            Error::on(Kind::Credentials, format!("read the credentials in {}", self.path.display()), host).because(cause)
        })?;
        Ok(credential.map(|credential| Found { credential, origin: self.path.display().to_string() }))
    }
}

impl Entry {
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credential::RegistryToken(self.registrytoken.clone())));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::IdentityToken(self.identitytoken.clone())));
        }
        if !self.auth.is_empty() {
            let bad = "`auth` is not `user:password` in base64";
            let engine = base64::engine::general_purpose::GeneralPurpose::new(
                &base64::alphabet::STANDARD,
                base64::engine::GeneralPurposeConfig::new()
                    .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
            );
            let decoded = engine.decode(self.auth.trim()).map_err(|_| bad)?;
            let text = String::from_utf8(decoded).map_err(|_| bad)?;
            let (username, password) = text.split_once(':').ok_or(bad)?;
            // Docker used to pad passwords with NUL.
            let password = password.trim_matches('\0').to_owned();
            return Ok(Some(Credential::Basic { username: username.to_owned(), password }));
        }
        if self.username.is_empty() && self.password.is_empty() {
            return Ok(None);
        }
        Ok(Some(Credential::Basic { username: self.username.clone(), password: self.password.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<DockerConfig> {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("config.json"), text).expect("written");
        DockerConfig::load(Some(directory.path()))
    }

    async fn found(config: &DockerConfig, host: &str) -> Option<Credential> {
        config.lookup(&RegistryHost::new(host)).await.expect("looked up").map(|found| found.credential)
    }

    fn basic(username: &str, password: &str) -> Option<Credential> {
        Some(Credential::Basic { username: username.into(), password: password.into() })
    }

    #[tokio::test]
    async fn every_way_docker_writes_an_entry_is_read() {
        let config = config(
            r#"{"auths":{
                "https://index.docker.io/v1/":{"auth":"aHViOnA6dw=="},
                "ghcr.io":{"username":"u","password":"p"},
                "https://old.example/v2/":{"auth":"bzpw"},
                "token.example":{"auth":"dTpw","identitytoken":"refresh"},
                "bearer.example":{"registrytoken":"t"},
                "empty.example":{}, "null.example":null}, "HttpHeaders":{"x":"y"}}"#,
        )
        .expect("read");
        assert_eq!(found(&config, "docker.io").await, basic("hub", "p:w"));
        assert_eq!(found(&config, "ghcr.io").await, basic("u", "p"));
        assert_eq!(found(&config, "old.example").await, basic("o", "p"));
        assert_eq!(found(&config, "token.example").await, Some(Credential::IdentityToken("refresh".into())));
        assert_eq!(found(&config, "bearer.example").await, Some(Credential::RegistryToken("t".into())));
        for host in ["empty.example", "null.example", "other.example"] {
            assert_eq!(found(&config, host).await, None, "{host}");
        }
    }

    #[test]
    fn helpers_are_named_for_a_host_or_for_all() {
        let config =
            config(r#"{"credsStore":"pass","credHelpers":{"a.example":"ecr-login","https://index.docker.io/v1/":"hub"}}"#)
                .expect("read");
        assert_eq!(config.helper_of(&RegistryHost::new("a.example")), Some("ecr-login"));
        assert_eq!(config.helper_of(&RegistryHost::new("docker.io")), Some("hub"));
        assert_eq!(config.helper_of(&RegistryHost::new("b.example")), Some("pass"));
    }

    #[tokio::test]
    async fn a_missing_file_is_empty_and_a_broken_one_an_error_that_shows_no_secret() {
        let missing = DockerConfig::load(Some(Path::new("/nonexistent"))).expect("no error");
        assert_eq!(found(&missing, "ghcr.io").await, None);
        let error = config(r#"{"auths":{"ghcr.io":{"auth":["s3cret"]}}}"#).expect_err("broken").to_string();
        assert!(error.contains("config.json") && error.contains("line 1") && !error.contains("s3cret"), "{error}");
        let bad = config(r#"{"auths":{"ghcr.io":{"auth":"%%s3cret"}}}"#).expect("read");
        let error = bad.lookup(&RegistryHost::new("ghcr.io")).await.expect_err("broken").to_string();
        assert!(error.contains("config.json") && !error.contains("s3cret"), "{error}");
    }
}
