//! The errors of a run: a kind with its exit code, a message, its causes and a hint.

use std::fmt;

use crate::hidden::Hidden;

/// The kind of failure, which scripts recognize by the exit code (command-line contract).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The build itself failed: exit 1.
    Build,
    /// Invalid words on the command line, or unusable input: exit 2.
    Usage,
    /// A push or a registry failed: exit 3.
    Push,
    /// The cache failed and `--cache-required` was given: exit 4.
    Cache,
    /// There is no usable Docker daemon, but the run requires one: exit 5.
    NoDaemon,
    /// A signal of this number stopped the run: exit 128 and the number.
    Interrupted(u8),
}

impl Kind {
    /// Returns the process's exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Build => 1,
            Self::Usage => 2,
            Self::Push => 3,
            Self::Cache => 4,
            Self::NoDaemon => 5,
            Self::Interrupted(signal) => 128 + signal,
        }
    }
}

/// A failure, in the form that the user reads.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    answer: Option<String>,
}

/// The result of functions of the upper rooms.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Creates a failure without a cause.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hint: None, answer: None }
    }

    /// Creates a failure of the build.
    #[must_use]
    pub fn build(message: impl Into<String>) -> Self {
        Self::new(Kind::Build, message)
    }

    /// Creates a failure because of invalid words or unusable input.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Creates a failure of a push or registry.
    #[must_use]
    pub fn push(message: impl Into<String>) -> Self {
        Self::new(Kind::Push, message)
    }

    /// Creates a failure because there is no usable daemon.
    #[must_use]
    pub fn no_daemon(message: impl Into<String>) -> Self {
        Self::new(Kind::NoDaemon, message)
    }

    /// Adds an error and its sources as the causes.
    #[must_use]
    pub fn because(mut self, cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(cause);
        while let Some(error) = next {
            let text = error.to_string();
            // Many libraries repeat the text of their source.
            if !self.causes.last().is_some_and(|last: &String| last.contains(&text)) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Adds another failure and its causes as the causes. Takes over its hint if this failure has none.
    #[must_use]
    pub fn caused_by(mut self, cause: Self) -> Self {
        self.causes.push(cause.message);
        self.causes.extend(cause.causes);
        self.hint = self.hint.or(cause.hint);
        self
    }

    /// Sets the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the hint, if there is one: for hints of another error.
    #[must_use]
    pub fn hint_if(self, hint: Option<impl Into<String>>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// Sets the partial result of the command, which hakobi still prints to standard output.
    #[must_use]
    pub fn answer(mut self, answer: impl Into<String>) -> Self {
        self.answer = Some(answer.into());
        self
    }

    /// Returns the failure without hidden values.
    #[must_use]
    pub fn without(mut self, hidden: &Hidden) -> Self {
        hidden.hide(&mut self.message);
        self.causes.iter_mut().chain(&mut self.hint).chain(&mut self.answer).for_each(|text| hidden.hide(text));
        self
    }

    /// Returns the kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the message without its causes. It may have several lines.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the causes, from the nearest to the farthest.
    #[must_use]
    pub fn causes(&self) -> &[String] {
        &self.causes
    }

    /// Returns the hint. Returns `None` if there is none.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the text for standard output. Returns `None` if there is none.
    #[must_use]
    pub fn answer_text(&self) -> Option<&str> {
        self.answer.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Returns a message and its hint in the form of the command line, for snapshots.
#[cfg(test)]
pub fn shown(message: &impl fmt::Display, hint: Option<&str>) -> String {
    let hint = hint.map(|hint| format!("  hint: {hint}\n")).unwrap_or_default();
    format!("error: {message}\n{hint}")
}
