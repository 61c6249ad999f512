//! A registry's answers, and its refusals with its own messages.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Response, Url};
use serde::Deserialize;

use super::auth::Challenge;
use super::error::{Error, Kind};
use super::retry::retry_after;
use crate::domain::Repository;

/// The answer to a request.
#[derive(Debug)]
pub(super) enum Reply {
    /// A status below 400.
    Ok(Response),
    /// Any other status, with the body read.
    Refused(Refusal),
}

/// A refusal.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) retry_after: Option<Duration>,
    pub(super) challenge: Option<Challenge>,
    /// The URL that sent it, after redirects.
    pub(super) from: Option<Url>,
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    detail: serde_json::Value,
}

const LARGEST_BODY: usize = 64 << 10;

impl Reply {
    /// Reads as much of an answer as necessary.
    pub(super) async fn from_response(response: Response) -> Self {
        if response.status().as_u16() < 400 {
            return Self::Ok(response);
        }
        Self::Refused(Refusal::from_response(response).await)
    }
}

impl Refusal {
    async fn from_response(mut response: Response) -> Self {
        let headers: &HeaderMap = response.headers();
        let mut refusal = Self {
            status: response.status().as_u16(),
            retry_after: retry_after(headers),
            challenge: Challenge::from_headers(headers),
            from: Some(response.url().clone()),
            ..Self::default()
        };
        let read = async {
            let mut body = Vec::new();
            while let Ok(Some(part)) = response.chunk().await {
                body.extend_from_slice(&part);
                if body.len() > LARGEST_BODY {
                    break;
                }
            }
            body
        };
        let body = tokio::time::timeout(Duration::from_secs(10), read).await.unwrap_or_default();
        if let Ok(Errors { errors }) = serde_json::from_slice(&body)
            && let Some(first) = errors.into_iter().next()
        {
            refusal.code = first.code;
            refusal.message = first.message;
            if let serde_json::Value::String(detail) = first.detail
                && !detail.is_empty()
                && !refusal.message.contains(&detail)
            {
                refusal.message = format!("{} ({detail})", refusal.message);
            }
        } else if !body.starts_with(b"<") {
            // The answer of a gateway in front of the registry: hakobi shows its first line, unless it is a page.
            let text = String::from_utf8_lossy(&body);
            refusal.message = text.lines().next().unwrap_or_default().trim().to_owned();
        }
        refusal.message = refusal.message.chars().take(400).collect();
        refusal
    }

    /// Returns whether the registry refused the login, so that a new login may help.
    pub(super) fn wants_login(&self) -> bool {
        // ECR answers an expired token with 403, and writes "authorization token" with and without capitals.
        let message = self.message.to_ascii_lowercase();
        self.status == 401 || (matches!(self.status, 400 | 403) && message.contains("token has expired"))
    }

    /// Returns whether the same request may succeed a little later.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self.status, 408 | 425 | 429 | 500 | 502 | 503 | 504) || self.code == "TOOMANYREQUESTS"
    }

    /// Returns whether the tag exists and cannot move. ECR and Harbor use these messages.
    pub(super) fn is_immutable_tag(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        self.code == "ImageTagAlreadyExistsException"
            || message.contains("tag is immutable")
            // ECR's message before tags had their own rules.
            || message.contains("repository is immutable")
            || message.contains("immutable tag")
            || message.contains("imagetagalreadyexists")
    }

    /// Returns its message in one line.
    pub(super) fn words(&self) -> String {
        match (self.code.as_str(), self.message.as_str()) {
            ("", "") => format!("the registry answered {}", self.status),
            ("", message) => format!("the registry answered {}: {message}", self.status),
            (code, "") => format!("the registry answered {} {code}", self.status),
            (code, message) => format!("the registry answered {} {code}: {message}", self.status),
        }
    }

    /// Converts the refusal to this room's error.
    pub(super) fn error(&self, what: &str, repository: &Repository) -> Error {
        let kind = match (self.status, self.code.as_str()) {
            _ if self.is_immutable_tag() => Kind::TagImmutable,
            (_, "NAME_UNKNOWN" | "RepositoryNotFoundException") => Kind::RepositoryMissing,
            (401, _) => Kind::Unauthorized,
            (403, _) => Kind::Denied,
            (404, _) => Kind::NotFound,
            (413, _) => Kind::TooLarge,
            (429, _) | (_, "TOOMANYREQUESTS") => Kind::TooManyRequests,
            _ if self.is_transient() => Kind::Unavailable,
            _ => Kind::Refused,
        };
        Error::at(kind, what, repository).because(&self.words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecr_has_several_words_for_the_same() {
        let said = |status: u16, message: &str| Refusal { status, message: message.to_owned(), ..Refusal::default() };
        for message in [
            "The image tag 'v1' already exists in the 'app' repository and cannot be overwritten because the tag is immutable.",
            "The image tag 'v1' already exists in the 'app' repository and cannot be overwritten because the repository is immutable.",
        ] {
            assert!(said(400, message).is_immutable_tag(), "{message}");
        }
        for message in [
            "Your authorization token has expired. Reauthenticate and try again.",
            "Your Authorization Token has expired. Please run 'aws ecr get-login --no-include-email' to fetch a new one.",
        ] {
            assert!(said(403, message).wants_login() && said(400, message).wants_login(), "{message}");
            assert!(!said(404, message).wants_login());
        }
        assert!(!said(403, "User: x is not authorized to perform: ecr:PutImage").wants_login());
    }

    #[test]
    fn a_registry_that_is_not_well_says_nothing_of_what_was_asked() {
        let repository = "ghcr.io/team/app".parse::<crate::domain::ImageRef>().expect("a reference").repository;
        for (status, code, kind, is_silence) in [
            (503, "", Kind::Unavailable, true),
            (500, "UNKNOWN", Kind::Unavailable, true),
            (429, "", Kind::TooManyRequests, true),
            (400, "TOOMANYREQUESTS", Kind::TooManyRequests, true),
            (401, "UNAUTHORIZED", Kind::Unauthorized, false),
            (404, "MANIFEST_UNKNOWN", Kind::NotFound, false),
            (400, "UNSUPPORTED", Kind::Refused, false),
            (501, "", Kind::Refused, false),
        ] {
            let refusal = Refusal { status, code: code.to_owned(), ..Refusal::default() };
            let error = refusal.error("check the manifest 1", &repository);
            assert_eq!((error.kind, error.is_silence()), (kind, is_silence), "{status} {code}");
        }
    }
}
