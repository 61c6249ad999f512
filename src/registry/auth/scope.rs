//! The repositories and actions of a request.

/// The repositories and actions of a request: the scope of its bearer token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::registry) struct Scope(Vec<String>);

impl Scope {
    /// Returns the empty scope, for a login.
    pub(in crate::registry) fn none() -> Self {
        Self(Vec::new())
    }

    /// Returns the scope for reading a repository.
    pub(in crate::registry) fn pull(path: &str) -> Self {
        Self(vec![format!("repository:{path}:pull")])
    }

    /// Returns the scope for writing to a repository.
    pub(in crate::registry) fn push(path: &str) -> Self {
        Self(vec![format!("repository:{path}:pull,push")])
    }

    /// Returns the scope for removing from a repository.
    pub(in crate::registry) fn delete(path: &str) -> Self {
        Self(vec![format!("repository:{path}:pull,push,delete")])
    }

    /// Adds the permission to read another repository, to mount its blobs.
    pub(in crate::registry) fn and_pull(mut self, path: &str) -> Self {
        self.0.push(format!("repository:{path}:pull"));
        self
    }

    /// Returns the scope in the form that a token service accepts.
    pub(in crate::registry) fn words(&self) -> &[String] {
        &self.0
    }
}
