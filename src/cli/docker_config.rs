//! Reads the parts of Docker's `config.json` that the command line needs: the current context and proxies. It never writes the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The parts of `config.json`.
#[derive(Debug, Default, Deserialize)]
pub struct DockerConfig {
    /// The directory of the file.
    #[serde(skip)]
    pub folder: Option<PathBuf>,
    /// The current context.
    #[serde(default, rename = "currentContext")]
    pub current_context: String,
    /// Proxies by the daemon's URL, and `default`.
    #[serde(default)]
    pub proxies: BTreeMap<String, Proxy>,
}

/// The proxies of one daemon.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxy {
    http_proxy: String,
    https_proxy: String,
    no_proxy: String,
    ftp_proxy: String,
}

impl DockerConfig {
    /// Reads the file. A missing file gives an empty configuration. An unreadable one also adds a warning, as in docker.
    pub fn read(folder: Option<PathBuf>, warnings: &mut Vec<String>) -> Self {
        let mut config = folder.as_deref().map(|folder| Self::parse(&folder.join("config.json"), warnings)).unwrap_or_default();
        config.folder = folder;
        config
    }

    fn parse(path: &Path, warnings: &mut Vec<String>) -> Self {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) => {
                if !matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) {
                    warnings.push(format!("failed to read {}: {error}", path.display()));
                }
                return Self::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            warnings.push(format!("ignoring {}: {error}", path.display()));
            Self::default()
        })
    }

    /// Returns the proxies as build arguments: those of this daemon, else of `default` (buildx `storeutil.GetProxyConfig`). The
    /// names are upper case only, because BuildKit itself passes both cases to RUN.
    pub fn proxy_arguments(&self, daemon: &str) -> Vec<(&'static str, &str)> {
        let Some(proxy) = self.proxies.get(daemon).or_else(|| self.proxies.get("default")) else { return Vec::new() };
        [
            ("HTTP_PROXY", proxy.http_proxy.as_str()),
            ("HTTPS_PROXY", &proxy.https_proxy),
            ("NO_PROXY", &proxy.no_proxy),
            ("FTP_PROXY", &proxy.ftp_proxy),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_of_the_daemon_come_before_the_default() {
        let config: DockerConfig = serde_json::from_str(
            r#"{"auths":{},"currentContext":"x","proxies":{
                "default":{"httpProxy":"http://a","noProxy":"n","allProxy":"http://all"},
                "tcp://h:1":{"httpsProxy":"http://b","ftpProxy":"f"}}}"#,
        )
        .expect("a configuration");
        assert_eq!(config.current_context, "x");
        assert_eq!(config.proxy_arguments("unix:///s"), [("HTTP_PROXY", "http://a"), ("NO_PROXY", "n")]);
        assert_eq!(config.proxy_arguments("tcp://h:1"), [("HTTPS_PROXY", "http://b"), ("FTP_PROXY", "f")]);
        assert!(DockerConfig::default().proxy_arguments("x").is_empty());
    }

    #[test]
    fn a_broken_file_is_a_warning() {
        let folder = tempfile::tempdir().expect("a directory");
        let mut warnings = Vec::new();
        DockerConfig::read(Some(folder.path().to_owned()), &mut warnings);
        DockerConfig::read(None, &mut warnings);
        assert!(warnings.is_empty(), "{warnings:?}");
        std::fs::write(folder.path().join("config.json"), "{").expect("written");
        DockerConfig::read(Some(folder.path().to_owned()), &mut warnings);
        assert!(warnings.len() == 1 && warnings[0].contains("config.json"), "{warnings:?}");
    }
}
