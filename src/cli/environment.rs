//! What surrounds the process, taken once: variables, working directory, terminals. Tests make their own.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

/// What surrounds the process.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Variables. Those whose name or value is not UTF-8 are left out.
    pub variables: BTreeMap<String, String>,
    /// The working directory; relative paths start there.
    pub current_dir: PathBuf,
    /// Whether standard output is a terminal.
    pub stdout_is_terminal: bool,
    /// Whether standard error is a terminal.
    pub stderr_is_terminal: bool,
    /// Standard input as a text; the process's own where absent.
    pub stdin: Option<String>,
}

impl Environment {
    /// That of this process.
    ///
    /// # Errors
    /// The working directory is gone.
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

    /// A variable; an empty one counts as not set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A variable, be it empty: what a build argument or a secret takes from here.
    #[must_use]
    pub fn get_raw(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// A path from the working directory, without `.` in it.
    #[must_use]
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.current_dir.join(path).components().collect()
    }

    /// Whether texts may be coloured: on a terminal, without NO_COLOR (no-color.org).
    #[must_use]
    pub fn color(&self, terminal: bool) -> bool {
        terminal && self.get("NO_COLOR").is_none() && self.get("TERM") != Some("dumb")
    }

    /// The folder of Docker's configuration: DOCKER_CONFIG, else `.docker` at home.
    #[must_use]
    pub fn docker_config(&self) -> Option<PathBuf> {
        match self.get("DOCKER_CONFIG") {
            Some(folder) => Some(self.resolve(folder)),
            None => self.get("HOME").map(|home| Path::new(home).join(".docker")),
        }
    }

    /// The user's cache directory (XDG base directory specification), if there is a home.
    #[must_use]
    pub fn user_cache(&self) -> Option<PathBuf> {
        match self.get("XDG_CACHE_HOME").map(Path::new).filter(|path| path.is_absolute()) {
            Some(path) => Some(path.to_owned()),
            None => self.get("HOME").map(|home| Path::new(home).join(".cache")),
        }
    }

    /// All of standard input, as far as a credential helper's question reaches.
    pub(super) fn read_stdin(&self) -> io::Result<String> {
        if let Some(text) = &self.stdin {
            return Ok(text.clone());
        }
        let mut text = String::new();
        io::stdin().lock().take(64 * 1024).read_to_string(&mut text)?;
        Ok(text)
    }
}
