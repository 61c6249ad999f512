//! Errors of registries: the action, the place, the number of attempts, and a hint for the user.

use crate::domain::{RegistryHost, Repository};
use crate::error as user;

use super::ecr::EcrHost;

/// The kind of failure, for callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Missing or wrong credentials (401).
    Unauthorized,
    /// The credentials do not allow the action (403).
    Denied,
    /// The repository does not exist.
    RepositoryMissing,
    /// The tag exists and the repository does not allow tags to move.
    TagImmutable,
    /// The manifest or blob does not exist.
    NotFound,
    /// The bytes do not match their digest.
    Damaged,
    /// There are more bytes than the limit.
    TooLarge,
    /// The certificate is invalid, or TLS fails.
    Tls,
    /// The connection failed, broke or stalled.
    Network,
    /// The registry asked to slow down (429).
    TooManyRequests,
    /// The registry or its login service is temporarily unavailable (500, 503 and similar), after all attempts.
    Unavailable,
    /// Any other answer of the registry.
    Refused,
    /// hakobi could not get credentials: a helper, config.json or AWS failed.
    Credentials,
    /// hakobi could not read the source of an upload. The registry works.
    Source,
    /// hakobi's own side failed.
    Local,
}

/// A failure at a registry.
#[derive(Debug, Clone, thiserror::Error)]
#[error("failed to {}{}{}{}", self.details.what, self.place(), self.tries(), self.why())]
pub struct Error {
    /// The kind of failure.
    pub kind: Kind,
    // Boxed to keep results small.
    details: Box<Details>,
}

#[derive(Debug, Clone)]
struct Details {
    what: String,
    place: String,
    cause: String,
    host: Option<RegistryHost>,
    repository: Option<Repository>,
    action: Option<&'static str>,
    attempts: u32,
    seconds: u64,
    /// The number of requests without any success before hakobi gave up, and the time in seconds.
    silent: Option<(u32, u64)>,
}

/// The result of this room's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Creates an error from an action and a place: `push tag 1`, `ghcr.io/team/app`. The place is empty if the action names it.
    pub(super) fn new(kind: Kind, what: impl Into<String>, place: impl Into<String>) -> Self {
        let details = Details {
            what: what.into(),
            place: place.into(),
            cause: String::new(),
            host: None,
            repository: None,
            action: None,
            attempts: 1,
            seconds: 0,
            silent: None,
        };
        Self { kind, details: Box::new(details) }
    }

    /// Creates an error in a repository.
    pub(super) fn at(kind: Kind, what: impl Into<String>, repository: &Repository) -> Self {
        let mut error = Self::new(kind, what, repository.to_string());
        error.details.host = Some(repository.host.clone());
        error.details.repository = Some(repository.clone());
        error
    }

    /// Creates an error of a registry as a whole.
    pub(super) fn on(kind: Kind, what: impl Into<String>, host: &RegistryHost) -> Self {
        let mut error = Self::new(kind, what, host.to_string());
        error.details.host = Some(host.clone());
        error
    }

    /// Creates an error of a registry's stand-in from an action with its place: `save a blob in the cache`.
    pub(crate) fn elsewhere(kind: Kind, what: impl Into<String>, cause: &str) -> Self {
        Self::new(kind, what, "").because(cause)
    }

    /// Creates an error for a fault of hakobi itself.
    pub(crate) fn internal(cause: &str) -> Self {
        Self::new(Kind::Local, "push", "").because(cause)
    }

    /// Adds the cause.
    pub(super) fn because(mut self, cause: &str) -> Self {
        self.details.cause = cause.trim().to_owned();
        self
    }

    /// Adds the IAM action that ECR requires.
    pub(super) fn needs(mut self, action: &'static str) -> Self {
        self.details.action = Some(action);
        self
    }

    /// Adds the number of attempts and their total time.
    pub(super) fn tried(mut self, attempts: u32, over: std::time::Duration) -> Self {
        self.details.attempts = attempts;
        self.details.seconds = over.as_secs();
        self
    }

    /// Adds that no request succeeded before hakobi gave up: the number of requests, and the time.
    pub(super) fn silent(mut self, requests: u32, over: std::time::Duration) -> Self {
        self.details.silent = Some((requests, over.as_secs()));
        self
    }

    /// Replaces the action, at the same place.
    pub(super) fn doing(mut self, what: impl Into<String>) -> Self {
        self.details.what = what.into();
        self
    }

    /// Adds the repository to an error that has only a cause.
    pub(super) fn within(mut self, repository: &Repository) -> Self {
        self.details.place = repository.to_string();
        self.details.host = Some(repository.host.clone());
        self.details.repository = Some(repository.clone());
        self
    }

    /// Replaces the repository by the registry as a whole.
    pub(super) fn without_repository(mut self) -> Self {
        if let Some(host) = &self.details.host {
            self.details.place = host.to_string();
        }
        self.details.repository = None;
        self
    }

    /// Returns whether the same action may succeed a little later.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Network | Kind::TooManyRequests)
    }

    /// Returns whether the registry did not answer the request itself: there was no answer, or only a temporary failure.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self.kind, Kind::Network | Kind::Tls | Kind::TooManyRequests | Kind::Unavailable)
    }

    fn place(&self) -> String {
        if self.details.place.is_empty() { String::new() } else { format!(" at {}", self.details.place) }
    }

    fn tries(&self) -> String {
        match self.details.attempts {
            0 | 1 => String::new(),
            attempts => format!(" after {attempts} attempts in {} s", self.details.seconds),
        }
    }

    fn why(&self) -> String {
        let cause = if self.details.cause.is_empty() { String::new() } else { format!(": {}", self.details.cause) };
        match (self.details.silent, &self.details.host) {
            (Some((requests, seconds)), Some(host)) if requests > self.details.attempts => {
                format!("{cause} (no usable answer from {host} to {requests} requests in {seconds} s)")
            }
            (Some((requests, seconds)), None) => format!("{cause} (no usable answer to {requests} requests in {seconds} s)"),
            _ => cause,
        }
    }

    /// Returns whether the cause may be a wrong clock: a signature of AWS is from another time, or a certificate is not valid yet.
    fn is_of_the_clock(&self) -> bool {
        const WORDS: [&str; 4] = ["Signature expired", "Signature not yet current", "certificate not valid yet", "NotValidYet"];
        matches!(self.kind, Kind::Credentials | Kind::Tls) && WORDS.iter().any(|words| self.details.cause.contains(words))
    }

    /// Returns a hint for the user. Returns `None` if there is none.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let host = self.details.host.as_ref()?;
        let ecr = EcrHost::parse(host);
        if self.is_of_the_clock() {
            return Some("set the clock of this machine, then try again".to_owned());
        }
        match (self.kind, ecr) {
            (Kind::Unauthorized | Kind::Denied, Some(_)) => {
                let action = self.details.action.unwrap_or("ecr:GetAuthorizationToken");
                let resource = match (&self.details.repository, action) {
                    (Some(repository), action) if action != "ecr:GetAuthorizationToken" => {
                        format!(" on the repository `{}`", repository.path)
                    }
                    _ => String::new(),
                };
                Some(format!("allow the IAM action `{action}`{resource} for the role (show the role with `aws sts get-caller-identity`)"))
            }
            (Kind::Unauthorized | Kind::Denied, None) => Some(format!("log in with `docker login {}`", login_name(host))),
            (Kind::Credentials, Some(_)) => Some(
                "give the job AWS credentials (a role, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or log in with `aws ecr get-login-password | docker login`"
                    .to_owned(),
            ),
            (Kind::RepositoryMissing, Some(ecr)) => {
                let path = self.details.repository.as_ref().map_or("NAME", |repository| repository.path.as_str());
                Some(format!(
                    "create it with `aws ecr create-repository --region {} --repository-name {path}`, or pass `--create-repository`",
                    ecr.region
                ))
            }
            (Kind::RepositoryMissing, None) => Some(format!("create the repository, or log in with `docker login {}` if it exists", login_name(host))),
            (Kind::Tls, _) => Some(format!(
                "if you trust this registry despite its certificate, or it uses plain HTTP, pass `--insecure-registry {host}`"
            )),
            (Kind::TagImmutable, _) => Some("push another tag, or pass `--if-tag-exists skip`".to_owned()),
            _ => None,
        }
    }
}

/// Returns the argument of `docker login` for a registry. It is empty for Docker Hub.
fn login_name(host: &RegistryHost) -> &str {
    if host.is_docker_hub() { "" } else { host.as_str() }
}

impl From<Error> for user::Error {
    fn from(error: Error) -> Self {
        let hint = error.hint().map(|hint| hint.trim_end().replace(" `docker login `", " `docker login`"));
        Self::push(error.to_string()).hint_if(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(text: &str) -> Repository {
        text.parse::<crate::domain::ImageRef>().expect("a reference").repository
    }

    #[test]
    fn errors_say_what_where_and_how_often() {
        let error = Error::at(Kind::Network, "upload layer sha256:ab", &repository("ghcr.io/team/app"))
            .because("the connection broke")
            .tried(3, std::time::Duration::from_secs(12));
        insta::assert_snapshot!(error, @"failed to upload layer sha256:ab at ghcr.io/team/app after 3 attempts in 12 s: the connection broke");
    }

    #[test]
    fn hints_name_the_command_or_the_action() {
        let hint = |kind, text: &str, action: Option<&'static str>| {
            let mut error = Error::at(kind, "x", &repository(text));
            error.details.action = action;
            user::Error::from(error).hint_text().unwrap_or_default().to_owned()
        };
        let ecr = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app";
        insta::assert_snapshot!(hint(Kind::Unauthorized, "ghcr.io/team/app", None), @"log in with `docker login ghcr.io`");
        insta::assert_snapshot!(hint(Kind::Denied, "team/app", None), @"log in with `docker login`");
        insta::assert_snapshot!(hint(Kind::Denied, ecr, Some("ecr:PutImage")), @"allow the IAM action `ecr:PutImage` on the repository `team/app` for the role (show the role with `aws sts get-caller-identity`)");
        insta::assert_snapshot!(hint(Kind::RepositoryMissing, ecr, None), @"create it with `aws ecr create-repository --region eu-west-1 --repository-name team/app`, or pass `--create-repository`");
        let off = Error::at(Kind::Credentials, "log in to ECR", &repository(ecr))
            .because("InvalidSignatureException: Signature expired: x");
        insta::assert_snapshot!(off.hint().unwrap_or_default(), @"set the clock of this machine, then try again");
        insta::assert_snapshot!(hint(Kind::Tls, "reg.example/app", None), @"if you trust this registry despite its certificate, or it uses plain HTTP, pass `--insecure-registry reg.example`");
    }
}
