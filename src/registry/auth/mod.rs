//! How a registry is logged in to: its challenge, and the token service behind it.

mod challenge;
mod token;

pub(super) use challenge::Challenge;
pub use token::Token;
pub(super) use token::{Ask, NoToken, fetch};

/// What a request does in which repositories: the scope of its bearer token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope(Vec<String>);

impl Scope {
    /// Nothing in particular: logging in.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Reading a repository.
    pub(super) fn pull(path: &str) -> Self {
        Self(vec![format!("repository:{path}:pull")])
    }

    /// Writing to a repository.
    pub(super) fn push(path: &str) -> Self {
        Self(vec![format!("repository:{path}:pull,push")])
    }

    /// And reading another one too, to mount its blobs.
    pub(super) fn and_pull(mut self, path: &str) -> Self {
        self.0.push(format!("repository:{path}:pull"));
        self
    }

    /// As a token service takes them.
    pub(super) fn words(&self) -> &[String] {
        &self.0
    }
}
