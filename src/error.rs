//! What can go wrong for a user: a kind with its exit code, a message, its cause and a hint.

use std::fmt;

use crate::hidden::Hidden;

/// What failed, as scripts tell it apart by exit code (command-line contract).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The build itself failed: exit 1.
    Build,
    /// Wrong words on the command line, or input that cannot be used: exit 2.
    Usage,
    /// A push or a registry failed: exit 3.
    Push,
    /// The cache failed and `--cache-required` was given: exit 4.
    Cache,
    /// No usable Docker daemon where one is needed: exit 5.
    NoDaemon,
    /// Stopped by a signal, whose number this is: exit 128 and the number.
    Interrupted(u8),
}

impl Kind {
    /// The process's exit code.
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

/// A failure as the user reads it.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    answer: Option<String>,
}

/// What functions of the upper rooms return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure without a cause.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hint: None, answer: None }
    }

    /// The build failed.
    #[must_use]
    pub fn build(message: impl Into<String>) -> Self {
        Self::new(Kind::Build, message)
    }

    /// Wrong words or unusable input.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A push or registry failed.
    #[must_use]
    pub fn push(message: impl Into<String>) -> Self {
        Self::new(Kind::Push, message)
    }

    /// No usable daemon.
    #[must_use]
    pub fn no_daemon(message: impl Into<String>) -> Self {
        Self::new(Kind::NoDaemon, message)
    }

    /// Takes an error and those behind it as the causes.
    #[must_use]
    pub fn because(mut self, cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(cause);
        while let Some(error) = next {
            let text = error.to_string();
            // Many libraries repeat their source's text in their own.
            if !self.causes.last().is_some_and(|last: &String| last.contains(&text)) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Takes another failure with its causes as the causes, and its hint where this one has none.
    #[must_use]
    pub fn caused_by(mut self, cause: Self) -> Self {
        self.causes.push(cause.message);
        self.causes.extend(cause.causes);
        self.hint = self.hint.or(cause.hint);
        self
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the user can do about it, if there is something: for hints that another error brings along.
    #[must_use]
    pub fn hint_if(self, hint: Option<impl Into<String>>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// What was asked for, as far as it was found: it goes to standard output all the same.
    #[must_use]
    pub fn answer(mut self, answer: impl Into<String>) -> Self {
        self.answer = Some(answer.into());
        self
    }

    /// Without the values that are hidden.
    #[must_use]
    pub fn without(mut self, hidden: &Hidden) -> Self {
        hidden.hide(&mut self.message);
        self.causes.iter_mut().chain(&mut self.hint).chain(&mut self.answer).for_each(|text| hidden.hide(text));
        self
    }

    /// What failed.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What happened, without its causes; may have several lines.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Why, from the nearest cause to the farthest.
    #[must_use]
    pub fn causes(&self) -> &[String] {
        &self.causes
    }

    /// What to do about it.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// What goes to standard output. Returns `None` if nothing was found.
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
