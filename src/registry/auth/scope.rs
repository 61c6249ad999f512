//! What a request does in which repositories.

/// What a request does in which repositories: the scope of its bearer token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::registry) struct Scope(Vec<String>);

impl Scope {
    /// Nothing in particular: logging in.
    pub(in crate::registry) fn none() -> Self {
        Self(Vec::new())
    }

    /// Reading a repository.
    pub(in crate::registry) fn pull(path: &str) -> Self {
        Self(vec![format!("repository:{path}:pull")])
    }

    /// Writing to a repository.
    pub(in crate::registry) fn push(path: &str) -> Self {
        Self(vec![format!("repository:{path}:pull,push")])
    }

    /// And reading another one too, to mount its blobs.
    pub(in crate::registry) fn and_pull(mut self, path: &str) -> Self {
        self.0.push(format!("repository:{path}:pull"));
        self
    }

    /// As a token service takes them.
    pub(in crate::registry) fn words(&self) -> &[String] {
        &self.0
    }
}
