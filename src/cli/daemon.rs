//! Finds the daemon: `--host`, DOCKER_HOST, DOCKER_CONTEXT, the current context (docker/cli `resolveContextName`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::docker_config::DockerConfig;
use super::environment::Environment;
use crate::error::{Error, Result};
use crate::settings::{DaemonEndpoint, DaemonTls};

/// The default address of the daemon.
pub const DEFAULT_URL: &str = "unix:///var/run/docker.sock";

const DEFAULT_CONTEXT: &str = "default";

/// The content of `contexts/meta/<sha256 of the name>/meta.json`.
#[derive(Deserialize)]
struct ContextMeta {
    #[serde(rename = "Endpoints", default)]
    endpoints: BTreeMap<String, EndpointMeta>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct EndpointMeta {
    host: String,
    #[serde(rename = "SkipTLSVerify")]
    skip_tls_verify: bool,
}

/// Returns the name of the current context. `default` is the context that uses the variables.
pub fn current_context(host: Option<&str>, environment: &Environment, config: &DockerConfig) -> String {
    if host.is_some() || environment.get("DOCKER_HOST").is_some() {
        return DEFAULT_CONTEXT.to_owned();
    }
    match environment.get("DOCKER_CONTEXT") {
        Some(name) => name.to_owned(),
        None if config.current_context.is_empty() => DEFAULT_CONTEXT.to_owned(),
        None => config.current_context.clone(),
    }
}

/// Returns the endpoint of the daemon.
///
/// # Errors
/// If the context does not exist, the URL is no valid address of a daemon, or certificates are missing.
pub fn endpoint(host: Option<&str>, environment: &Environment, config: &DockerConfig) -> Result<DaemonEndpoint> {
    let context = current_context(host, environment, config);
    if context != DEFAULT_CONTEXT {
        return from_context(&context, environment, config);
    }
    let (url, origin) = match (host, environment.get("DOCKER_HOST")) {
        (Some(url), _) => (Some(url), "--host"),
        (None, Some(url)) => (Some(url), "DOCKER_HOST"),
        (None, None) => (None, "default"),
    };
    // DOCKER_TLS_VERIFY implies TLS, but DOCKER_TLS alone verifies nothing (docker/cli `ClientOptions.SetDefaultOptions`).
    let verify = environment.get("DOCKER_TLS_VERIFY").is_some();
    let wants_tls = verify || environment.get("DOCKER_TLS").is_some();
    let url = match url {
        Some(url) => normalize(url, wants_tls, origin)?,
        None if wants_tls => "tcp://localhost:2376".to_owned(),
        None => DEFAULT_URL.to_owned(),
    };
    let tls = match url.starts_with("tcp://") && wants_tls {
        false => None,
        true => Some(certificates_of_variables(verify, environment, config)?),
    };
    Ok(DaemonEndpoint { url, tls, origin: origin.to_owned() })
}

fn certificates_of_variables(verify: bool, environment: &Environment, config: &DockerConfig) -> Result<DaemonTls> {
    let folder = environment.get("DOCKER_CERT_PATH").map(|folder| environment.resolve(folder)).or_else(|| config.folder.clone());
    let tls = DaemonTls { skip_verify: !verify, ..certificates_in(folder.as_deref()) };
    match folder {
        Some(folder) if verify && tls.ca.is_none() => {
            Err(Error::usage(format!("DOCKER_TLS_VERIFY is set, but {} does not exist", folder.join("ca.pem").display()))
                .hint("set DOCKER_CERT_PATH to the directory with ca.pem, cert.pem and key.pem"))
        }
        _ => Ok(tls),
    }
}

fn certificates_in(folder: Option<&Path>) -> DaemonTls {
    let file = |name: &str| -> Option<PathBuf> { folder.map(|folder| folder.join(name)).filter(|path| path.is_file()) };
    DaemonTls { ca: file("ca.pem"), cert: file("cert.pem"), key: file("key.pem"), skip_verify: false }
}

fn from_context(name: &str, environment: &Environment, config: &DockerConfig) -> Result<DaemonEndpoint> {
    let origin = format!("context \"{name}\"");
    let named_by = if environment.get("DOCKER_CONTEXT").is_some() { "DOCKER_CONTEXT" } else { "Docker's config.json" };
    let id = Sha256::digest(name).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let contexts = config.folder.as_deref().map(|folder| folder.join("contexts")).unwrap_or_default();
    let path = contexts.join("meta").join(&id).join("meta.json");
    let text = std::fs::read(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::usage(format!("the Docker context `{name}`, named by {named_by}, does not exist"))
            .hint("list the contexts with `docker context ls`, or set --host or DOCKER_HOST"),
        _ => Error::usage(format!("failed to read the Docker context `{name}` from {}", path.display())).because(&error),
    })?;
    let mut meta: ContextMeta = serde_json::from_slice(&text)
        .map_err(|error| Error::usage(format!("the Docker context `{name}` has an unknown format")).because(&error))?;
    let Some(docker) = meta.endpoints.remove("docker") else {
        return Err(Error::usage(format!("the Docker context `{name}` has no Docker endpoint")));
    };
    if docker.host.is_empty() {
        return Ok(DaemonEndpoint { url: DEFAULT_URL.to_owned(), tls: None, origin });
    }
    let folder = contexts.join("tls").join(&id).join("docker");
    let found = DaemonTls { skip_verify: docker.skip_tls_verify, ..certificates_in(Some(&folder)) };
    let wants_tls = found != DaemonTls::default();
    let url = normalize(&docker.host, wants_tls, &origin)?;
    Ok(DaemonEndpoint { tls: (wants_tls && url.starts_with("tcp://")).then_some(found), url, origin })
}

/// Adds the missing parts of an address (docker/cli `opts.ParseHost`).
fn normalize(url: &str, tls: bool, origin: &str) -> Result<String> {
    let url = url.trim();
    let invalid = |why: &str| {
        Error::usage(format!("invalid address of a Docker daemon `{url}` ({origin}): {why}"))
            .hint("use unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST")
    };
    match url.split_once("://") {
        Some(("unix", "")) => Ok(DEFAULT_URL.to_owned()),
        Some(("unix", path)) if path.starts_with('/') => Ok(url.to_owned()),
        Some(("unix", _)) => Err(invalid("the socket's path must be absolute")),
        Some(("ssh", host)) if !host.is_empty() => Ok(url.to_owned()),
        Some(("tcp", address)) => tcp(address, tls).ok_or_else(|| invalid("expected HOST:PORT")),
        Some(("npipe", _)) => Err(invalid("named pipes are not supported")),
        None => tcp(url, tls).ok_or_else(|| invalid("expected HOST:PORT")),
        Some(_) => Err(invalid("unknown scheme")),
    }
}

fn tcp(address: &str, tls: bool) -> Option<String> {
    let (authority, path) = match address.find('/') {
        Some(at) => address.split_at(at),
        None => (address, ""),
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority, ""),
    };
    let host = if host.is_empty() { "localhost" } else { host };
    let port = match port {
        "" if tls => 2376,
        "" => 2375,
        port => port.parse::<u16>().ok()?,
    };
    let fits = !host.contains([' ', '@', '?', '#']) && (host.starts_with('[') || !host.contains(':'));
    fits.then(|| format!("tcp://{host}:{port}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Environment { variables, current_dir: "/work".into(), ..Environment::default() }
    }

    fn with_context(name: &str, meta: &str, files: &[&str]) -> (tempfile::TempDir, DockerConfig) {
        let folder = tempfile::tempdir().expect("a directory");
        let id: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
        let place = folder.path().join("contexts/meta").join(&id);
        std::fs::create_dir_all(&place).expect("made");
        std::fs::write(place.join("meta.json"), meta).expect("written");
        let tls = folder.path().join("contexts/tls").join(&id).join("docker");
        std::fs::create_dir_all(&tls).expect("made");
        for file in files {
            std::fs::write(tls.join(file), "x").expect("written");
        }
        let config =
            DockerConfig { folder: Some(folder.path().to_owned()), current_context: name.to_owned(), ..DockerConfig::default() };
        (folder, config)
    }

    #[test]
    fn addresses_are_completed_or_refused() {
        for (text, url) in [
            ("unix:///run/x.sock", Some("unix:///run/x.sock")),
            ("unix://", Some(DEFAULT_URL)),
            ("tcp://h:1", Some("tcp://h:1")),
            ("tcp://h", Some("tcp://h:2375")),
            ("h:1", Some("tcp://h:1")),
            ("tcp://[::1]:5/p", Some("tcp://[::1]:5/p")),
            ("tcp://:1", Some("tcp://localhost:1")),
            ("ssh://u@h", Some("ssh://u@h")),
            ("tcp://h:x", None),
            ("npipe:////./pipe/docker_engine", None),
            ("http://h:1", None),
            ("unix://relative", None),
        ] {
            assert_eq!(
                endpoint(Some(text), &environment(&[]), &DockerConfig::default()).ok().map(|e| e.url).as_deref(),
                url,
                "{text}"
            );
        }
        let error = endpoint(Some("npipe://x"), &environment(&[]), &DockerConfig::default()).expect_err("refused");
        assert!(error.to_string().contains("named pipes are not supported"), "{error}");
    }

    #[test]
    fn the_order_is_dockers() {
        let (_folder, config) = with_context("far", r#"{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far:2376"}}}"#, &[]);
        let of = |host: Option<&str>, variables: &[(&str, &str)]| {
            endpoint(host, &environment(variables), &config).map(|e| (e.url, e.origin)).map_err(|error| error.to_string())
        };
        let pair = |url: &str, origin: &str| Ok((url.to_owned(), origin.to_owned()));
        assert_eq!(of(Some("tcp://a:1"), &[("DOCKER_HOST", "tcp://b:1")]), pair("tcp://a:1", "--host"));
        assert_eq!(of(None, &[("DOCKER_HOST", "tcp://b:1"), ("DOCKER_CONTEXT", "x")]), pair("tcp://b:1", "DOCKER_HOST"));
        assert_eq!(of(None, &[("DOCKER_CONTEXT", "default")]), pair(DEFAULT_URL, "default"));
        assert_eq!(of(None, &[]), pair("tcp://far:2376", "context \"far\""));
        let error = of(None, &[("DOCKER_CONTEXT", "near")]).expect_err("unknown");
        assert!(error.contains("`near`, named by DOCKER_CONTEXT"), "{error}");
        assert_eq!(endpoint(None, &environment(&[]), &DockerConfig::default()).map(|e| e.url).ok().as_deref(), Some(DEFAULT_URL));
    }

    #[test]
    fn certificates_come_with_the_context_or_the_variables() {
        let meta = r#"{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far","SkipTLSVerify":true}}}"#;
        let (_folder, config) = with_context("far", meta, &["ca.pem", "cert.pem", "key.pem"]);
        let found = endpoint(None, &environment(&[]), &config).expect("an endpoint");
        assert_eq!(found.url, "tcp://far:2376");
        assert!(found.tls.is_some_and(|tls| tls.skip_verify && tls.ca.is_some() && tls.cert.is_some() && tls.key.is_some()));

        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().to_string_lossy().into_owned();
        let variables = [("DOCKER_HOST", "tcp://h"), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", path.as_str())];
        let error = endpoint(None, &environment(&variables), &DockerConfig::default()).expect_err("no certificates");
        assert!(error.to_string().contains("ca.pem"), "{error}");
        std::fs::write(folder.path().join("ca.pem"), "x").expect("written");
        let found = endpoint(None, &environment(&variables), &DockerConfig::default()).expect("an endpoint");
        assert!(found.tls.is_some_and(|tls| !tls.skip_verify && tls.ca.is_some() && tls.cert.is_none()));
        let unverified = [("DOCKER_HOST", "tcp://h"), ("DOCKER_TLS", "1"), ("DOCKER_CERT_PATH", "/nowhere")];
        let found = endpoint(None, &environment(&unverified), &DockerConfig::default()).expect("an endpoint");
        assert_eq!((found.url.as_str(), found.tls.is_some_and(|tls| tls.skip_verify)), ("tcp://h:2376", true));
        let socket =
            endpoint(None, &environment(&[("DOCKER_HOST", "unix:///s"), ("DOCKER_TLS_VERIFY", "1")]), &DockerConfig::default());
        assert!(socket.is_ok_and(|socket| socket.tls.is_none()), "a socket needs no certificates");
    }
}
