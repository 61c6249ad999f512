//! Image references as Docker writes them (distribution/reference): `[HOST/]PATH[:TAG][@DIGEST]`.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::{Digest, InvalidDigest};

/// The host of a registry, with its port: `docker.io`, `127.0.0.1:5000`, `1234.dkr.ecr.eu-west-1.amazonaws.com`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct RegistryHost(String);

impl RegistryHost {
    /// Docker Hub's name in references.
    pub const DOCKER_HUB: &str = "docker.io";

    /// Returns a host by its name in a reference.
    #[must_use]
    pub fn new(host: impl Into<String>) -> Self {
        match host.into() {
            // Both names are Docker Hub's (distribution/reference `splitDockerDomain`).
            host if host == "index.docker.io" => Self(Self::DOCKER_HUB.to_owned()),
            host => Self(host),
        }
    }

    /// Returns the host with its port, if any.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the host without its port and without the brackets of an IPv6 address.
    #[must_use]
    pub fn name(&self) -> &str {
        if let Some(rest) = self.0.strip_prefix('[') {
            return rest.split(']').next().unwrap_or(rest);
        }
        self.0.split(':').next().unwrap_or(&self.0)
    }

    /// Returns whether this is Docker Hub.
    #[must_use]
    pub fn is_docker_hub(&self) -> bool {
        self.0 == Self::DOCKER_HUB
    }

    /// Returns whether the host is this machine: such registries may speak plain HTTP, as in Docker (127.0.0.0/8, ::1, localhost).
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let name = self.name();
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A repository: a registry's host and a path in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    /// The registry.
    pub host: RegistryHost,
    /// The path: `library/alpine`, `team/app`.
    pub path: String,
}

impl Repository {
    /// Returns the reference of a tag in this repository.
    #[must_use]
    pub fn tag(&self, tag: &str) -> ImageRef {
        ImageRef { repository: self.clone(), tag: Some(tag.to_owned()), digest: None }
    }

    /// Returns the reference of a manifest in this repository.
    #[must_use]
    pub fn digest(&self, digest: &Digest) -> ImageRef {
        ImageRef { repository: self.clone(), tag: None, digest: Some(digest.clone()) }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

/// A full image reference. Parsing adds the parts that Docker omits: `docker.io`, `library/`. It adds no tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRef {
    /// The repository of the image.
    pub repository: Repository,
    /// The tag, if the reference has one.
    pub tag: Option<String>,
    /// The manifest's digest, if the reference has one.
    pub digest: Option<Digest>,
}

impl ImageRef {
    /// Returns the reference for a registry request: the digest, or else the tag, or else `latest`.
    #[must_use]
    pub fn reference(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// Returns the reference with the tag `latest` if it has neither tag nor digest (distribution/reference `TagNameOnly`).
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repository.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl Serialize for ImageRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The error for a text that is no image reference.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum InvalidReference {
    /// The text is empty.
    #[error("the image reference is empty")]
    Empty,
    /// Names are lower case.
    #[error("invalid image reference `{0}`: the repository's name must be lower case")]
    UpperCase(String),
    /// Another part is invalid.
    #[error("invalid image reference `{0}`: expected [HOST/]NAME[:TAG][@sha256:DIGEST]")]
    Malformed(String),
    /// The digest is invalid.
    #[error("invalid image reference `{0}`: {1}")]
    Digest(String, InvalidDigest),
    /// The name is longer than 255 characters.
    #[error("invalid image reference `{0}`: the repository's name is longer than 255 characters")]
    TooLong(String),
}

impl FromStr for ImageRef {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.is_empty() {
            return Err(InvalidReference::Empty);
        }
        let malformed = || InvalidReference::Malformed(text.to_owned());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|error| InvalidReference::Digest(text.to_owned(), error))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(malformed());
        }
        let (host, path) = split_host(name);
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(InvalidReference::UpperCase(text.to_owned()));
        }
        if !path.split('/').all(is_component) || !is_host(host.as_str()) {
            return Err(malformed());
        }
        if host.as_str().len() + 1 + path.len() > 255 {
            return Err(InvalidReference::TooLong(text.to_owned()));
        }
        Ok(Self { repository: Repository { host, path }, tag: tag.map(str::to_owned), digest })
    }
}

/// Splits off the host. The first component is a host if it has a dot or a colon, is `localhost`, or has upper-case letters
/// (distribution/reference `splitDockerDomain`).
fn split_host(name: &str) -> (RegistryHost, String) {
    let (host, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            (RegistryHost::new(first), rest)
        }
        _ => (RegistryHost::new(RegistryHost::DOCKER_HUB), name),
    };
    let path = if host.is_docker_hub() && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    (host, path)
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let port_fits = port.is_none_or(|port| !port.is_empty() && port.chars().all(|c| c.is_ascii_digit()));
    let bracketed = name.starts_with('[') && name.ends_with(']');
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || (bracketed && ":[]".contains(c));
    port_fits && !name.is_empty() && name.chars().all(fits) && !name.starts_with(['-', '.']) && !name.ends_with(['-', '.'])
}

/// Returns whether a component is valid: lower-case letters and digits, separated by one `.`, one or two `_`, or any number of `-`.
fn is_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    bytes.split(alphanumeric).all(|separator| match separator {
        [] | b"." | b"_" | b"__" => true,
        dashes => dashes.iter().all(|b| *b == b'-'),
    })
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=128).contains(&tag.len()) && tag.chars().next().is_some_and(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What a reference is shown as is that reference again.
        #[test]
        fn a_reference_is_what_it_is_shown_as(
            host in "([a-z][a-z0-9]{0,5}\\.[a-z]{2,4}(:[1-9][0-9]{0,3})?/)?",
            path in "[a-z0-9]{1,6}((/|\\.|_|__|-{1,3})[a-z0-9]{1,6}){0,3}",
            tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?",
            digest in any::<Option<Vec<u8>>>(),
        ) {
            // Such a first part is a host (`splitDockerDomain`), and a host has no underscore.
            prop_assume!(!host.is_empty() || !path.split_once('/').is_some_and(|(first, _)| first.contains('.')));
            let digest = digest.map(|bytes| format!("@{}", Digest::hash(&bytes))).unwrap_or_default();
            let text = format!("{host}{path}{tag}{digest}");
            let reference: ImageRef = text.parse().expect("a reference");
            prop_assert_eq!(&reference.to_string().parse::<ImageRef>().expect("a reference"), &reference);
            let end = [path, tag, digest].concat();
            prop_assert!(reference.to_string().ends_with(&end));
        }

        /// Any text is a reference or an error.
        #[test]
        fn any_text_is_a_reference_or_an_error(text in ".{0,80}") {
            if let Ok(reference) = text.parse::<ImageRef>() {
                prop_assert_eq!(reference.to_string().parse::<ImageRef>().expect("a reference"), reference);
            }
        }
    }

    #[test]
    fn what_docker_leaves_out_is_put_in() {
        for (text, full) in [
            ("app", "docker.io/library/app"),
            ("app:1", "docker.io/library/app:1"),
            ("team/app", "docker.io/team/app"),
            ("index.docker.io/app", "docker.io/library/app"),
            ("localhost/app", "localhost/app"),
            ("localhost:5000/a/b__c-d.e:T_1.x-y", "localhost:5000/a/b__c-d.e:T_1.x-y"),
            ("127.0.0.1:5000/app", "127.0.0.1:5000/app"),
            ("[::1]:5000/app:1", "[::1]:5000/app:1"),
            ("1234.dkr.ecr.eu-west-1.amazonaws.com/app", "1234.dkr.ecr.eu-west-1.amazonaws.com/app"),
        ] {
            assert_eq!(text.parse::<ImageRef>().map(|r| r.to_string()), Ok(full.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_digest_goes_before_a_tag() {
        let digest = Digest::hash(b"x");
        let reference: ImageRef = format!("app:1@{digest}").parse().expect("a reference");
        assert_eq!(reference.tag.as_deref(), Some("1"));
        assert_eq!(reference.reference(), digest.to_string());
    }

    #[test]
    fn bad_references_are_refused() {
        for text in [
            "",
            "App",
            "a//b",
            "app:",
            "app:-x",
            "a_-b",
            "a...b",
            "app@sha256:12",
            "host.x:port/app",
            "/app",
            "app/",
            "a b",
            "-h.x/app",
        ] {
            assert!(text.parse::<ImageRef>().is_err(), "{text}");
        }
    }

    #[test]
    fn loopback_hosts_are_known() {
        for (host, loopback) in [
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("localhost:1", true),
            ("[::1]:5", true),
            ("10.0.0.1", false),
            ("docker.io", false),
        ] {
            assert_eq!(RegistryHost::new(host).is_loopback(), loopback, "{host}");
        }
    }
}
