//! A machine like that of a CI job: its own home, an empty environment, and hakobi on its path.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::parts::part;

/// The machine. Its home is removed when this value is dropped.
pub struct Machine {
    home: TempDir,
    variables: Vec<(String, String)>,
}

impl Machine {
    /// Creates a machine with the daemon at this address, as in DOCKER_HOST.
    pub fn with(daemon: &str) -> Self {
        let machine = Self::without_daemon();
        machine.set("DOCKER_HOST", daemon)
    }

    pub fn without_daemon() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("work")).unwrap();
        fs::create_dir(home.path().join("docker")).unwrap();
        Self { home, variables: Vec::new() }
    }

    /// Sets a variable in its environment.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets a variable in its environment, after an earlier value.
    pub fn put(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Removes a variable from its environment.
    pub fn unset(&mut self, name: &str) {
        self.variables.retain(|(own, _)| own != name);
    }

    /// Adds Docker's record of a login at the tests' registry with authentication.
    pub fn logged_in(self) -> Self {
        let (user, password) = (part("HAKOBI_TEST_REGISTRY_USER"), part("HAKOBI_TEST_REGISTRY_PASSWORD"));
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let config = json!({ "auths": { part("HAKOBI_TEST_REGISTRY"): { "auth": auth } } });
        fs::write(self.docker_config().join("config.json"), config.to_string()).unwrap();
        self
    }

    /// Returns its DOCKER_CONFIG.
    pub fn docker_config(&self) -> PathBuf {
        self.home.path().join("docker")
    }

    /// Returns its HOME.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Returns the working directory of its commands: the checkout of the project.
    pub fn folder(&self) -> PathBuf {
        self.home.path().join("work")
    }

    /// Writes a file of the project, and creates its directories.
    pub fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.folder().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.folder().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Reads a report that a run wrote.
    pub fn report(&self, path: &str) -> Value {
        serde_json::from_str(&self.read(path)).unwrap()
    }

    /// Returns a command with only this machine's environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let own = Path::new(env!("CARGO_BIN_EXE_hakobi")).parent().unwrap();
        let mut paths = vec![own.to_owned()];
        paths.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::join_paths(paths).unwrap())
            .env("HOME", self.home.path())
            .env("DOCKER_CONFIG", self.docker_config())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder())
            .stdin(Stdio::null());
        command
    }

    /// Runs hakobi with these arguments, even if it fails.
    pub fn hakobi(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(env!("CARGO_BIN_EXE_hakobi")).args(arguments))
    }
}

/// The result of a program.
#[derive(Debug)]
pub struct Run {
    command: String,
    /// The exit code. After a signal it is 128 plus the signal's number, as in a shell.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self::ended(command, output)
    }

    fn ended(command: &Command, output: Output) -> Self {
        let Output { status, stdout, stderr } = output;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        let command = format!("{} {}", command.get_program().to_string_lossy(), arguments.join(" "));
        Self { command, code: status.code().unwrap_or(128 + signal), stdout: text(stdout), stderr: text(stderr) }
    }

    /// The same, but kills a program that runs for longer than `limit`, because it hangs.
    pub fn within(command: &mut Command, limit: Duration) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (id, (ended, wait)) = (child.id(), mpsc::channel::<()>());
        let watch = std::thread::spawn(move || {
            if wait.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-KILL", &id.to_string()]).status();
            }
        });
        let output = child.wait_with_output().unwrap();
        drop(ended);
        watch.join().unwrap();
        Self::ended(command, output)
    }

    /// Fails the test, and prints all output, if the exit code is another one.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n--- stdout\n{}\n--- stderr\n{}", self.command, self.stdout, self.stderr);
        self
    }
}
