//! The environment of the process, read once: variables, working directory, terminals. Tests create their own.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

/// The environment of the process.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The variables, without those whose name or value is not UTF-8.
    pub variables: BTreeMap<String, String>,
    /// The working directory, the base of relative paths.
    pub current_dir: PathBuf,
    /// Whether standard output is a terminal.
    pub stdout_is_terminal: bool,
    /// Whether standard error is a terminal.
    pub stderr_is_terminal: bool,
    /// Standard input as text. `None` means the standard input of the process.
    pub stdin: Option<String>,
}

impl Environment {
    /// Returns the environment of this process.
    ///
    /// # Errors
    /// If the working directory no longer exists.
    pub fn of_process() -> io::Result<Self> {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Ok(Self {
            variables: variables.collect(),
            current_dir: std::env::current_dir()?,
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal(),
            stdin: None,
        })
    }

    /// Returns a variable. Returns `None` if it is empty or not set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns a variable, even if it is empty. Build arguments and secrets read variables like this.
    #[must_use]
    pub fn get_raw(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Returns an absolute path, without `.` in it. A relative path starts at the working directory.
    #[must_use]
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.current_dir.join(path).components().collect()
    }

    /// Returns whether texts may have colours: on a terminal, and without NO_COLOR (no-color.org).
    #[must_use]
    pub fn color(&self, terminal: bool) -> bool {
        terminal && self.get("NO_COLOR").is_none() && self.get("TERM") != Some("dumb")
    }

    /// Returns the directory of Docker's configuration: DOCKER_CONFIG, else `.docker` in the home directory. Returns `None`
    /// without a home directory.
    #[must_use]
    pub fn docker_config(&self) -> Option<PathBuf> {
        match self.get("DOCKER_CONFIG") {
            Some(folder) => Some(self.resolve(folder)),
            None => self.get("HOME").map(|home| Path::new(home).join(".docker")),
        }
    }

    /// Returns the user's cache directory (XDG base directory specification). Returns `None` without a home directory.
    #[must_use]
    pub fn user_cache(&self) -> Option<PathBuf> {
        match self.get("XDG_CACHE_HOME").map(Path::new).filter(|path| path.is_absolute()) {
            Some(path) => Some(path.to_owned()),
            None => self.get("HOME").map(|home| Path::new(home).join(".cache")),
        }
    }

    /// Reads standard input, up to the maximum length of a credential helper's request.
    pub(super) fn read_stdin(&self) -> io::Result<String> {
        if let Some(text) = &self.stdin {
            return Ok(text.clone());
        }
        let mut text = String::new();
        io::stdin().lock().take(64 * 1024).read_to_string(&mut text)?;
        Ok(text)
    }
}
