//! The world of a test: a machine with a project, a scripted daemon, a registry with a base image, and a cache in a directory.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::fault_proxy::FaultProxy;
use crate::machine::{Machine, Run};
use crate::s3::{BUCKET, S3Server};
use crate::scripted::daemon::{Daemon, StoreKind};
use crate::scripted::files::{Files, Node};
use crate::scripted::plain::{plain, same_image};
use crate::scripted::registry::{Image, Registry};

/// Returns the runtime of all tests. Each test ends its own tasks.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

pub struct World {
    pub machine: Machine,
    pub daemon: Arc<Daemon>,
    pub registry: Registry,
    socket: tempfile::TempDir,
    listening: tokio::task::JoinHandle<()>,
    /// The name of the base image.
    pub base: String,
    /// Where the cache is.
    place: Place,
    /// The S3 server and its proxy, if the cache is there.
    pub s3: Option<(S3Server, FaultProxy)>,
    /// The proxy of the registry, if there is one.
    pub front: Option<FaultProxy>,
}

/// Where a cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Directory,
    /// Beside the image: `--cache-from IMAGE`.
    Beside,
    /// In a repository of its own, in the registry of the image.
    Repository,
    /// In S3, behind a proxy with faults.
    S3,
}

impl Drop for World {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// The result of a build that succeeded.
pub struct Built {
    pub report: Value,
    /// The names of the steps that the daemon ran, as in the progress display.
    pub ran: Vec<String>,
    pub stderr: String,
}

impl Built {
    pub fn tier(&self) -> &str {
        self.report["tier"].as_str().unwrap_or_default()
    }

    /// Returns the warnings about the cache.
    pub fn warnings(&self) -> Vec<String> {
        let all = self.report["cache"]["warnings"].as_array().into_iter().flatten();
        all.map(|warning| warning.as_str().map_or_else(|| warning.to_string(), str::to_owned)).collect()
    }

    /// Returns the instructions of the steps with this status.
    pub fn steps(&self, status: &str) -> Vec<&str> {
        let steps = self.report["steps"].as_array().into_iter().flatten().filter(|step| step["status"] == status);
        steps.filter_map(|step| step["instruction"].as_str()).collect()
    }
}

impl World {
    /// Creates a world with this Dockerfile. In it, `BASE` means the base image.
    pub fn new(dockerfile: &str) -> Self {
        Self::on(StoreKind::Containerd, dockerfile)
    }

    /// Creates a world whose daemon has this image store.
    pub fn on(store: StoreKind, dockerfile: &str) -> Self {
        let socket = tempfile::tempdir().unwrap();
        let path = socket.path().join("docker.sock");
        let daemon = Daemon::new(store);
        let (registry, listening) = runtime().block_on(async { (Registry::start().await, daemon.listen(&path)) });
        let mut files = Files::default();
        files.put("etc/base-release", Node::file("1\n", 0o644, 1_700_000_000));
        files.put("app/old", Node::file("of the base\n", 0o600, 1_700_000_000));
        let base = registry.put_image("base", &[files], json!({ "Env": ["PATH=/bin"], "Cmd": ["sh"] }));
        let machine = Machine::with(&format!("unix://{}", path.display()));
        let world = Self { machine, daemon, registry, socket, listening, base, place: Place::Directory, s3: None, front: None };
        world.put_dockerfile(dockerfile);
        world
    }

    /// The same with the cache somewhere else.
    pub fn with_cache(mut self, place: Place) -> Self {
        self.place = place;
        if place == Place::S3 {
            let server = S3Server::start();
            let proxy = FaultProxy::start(server.endpoint().trim_start_matches("http://"));
            for (name, value) in server.variables() {
                self.machine.put(name, &value);
            }
            self.machine.put("AWS_ENDPOINT_URL_S3", &format!("http://{}", proxy.host()));
            self.s3 = Some((server, proxy));
        }
        self
    }

    /// The same with the registry behind a proxy, for hakobi and for the daemon.
    pub fn behind_proxy(mut self) -> Self {
        let proxy = FaultProxy::start(&self.registry.host());
        let base = self.base.replace(&self.registry.host(), &proxy.host());
        self.machine.write("Dockerfile", &self.machine.read("Dockerfile").replace(&self.base, &base));
        self.base = base;
        self.front = Some(proxy);
        self
    }

    /// Returns the registry's `host:port`, as hakobi has it.
    pub fn registry_host(&self) -> String {
        self.front.as_ref().map_or_else(|| self.registry.host(), FaultProxy::host)
    }

    /// Replaces the Dockerfile.
    pub fn dockerfile(self, text: &str) -> Self {
        self.put_dockerfile(text);
        self
    }

    pub fn put_dockerfile(&self, text: &str) {
        self.machine.write("Dockerfile", &text.replace("BASE", &self.base));
    }

    pub fn write(&self, path: &str, text: &str) -> &Self {
        self.machine.write(path, text);
        self
    }

    /// Returns the cache's directory.
    pub fn cache(&self) -> PathBuf {
        self.machine.home().join("cache")
    }

    /// Returns the cache's file of a blob, by its digest.
    pub fn cached(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let found = all_files(&self.cache()).into_iter().find(|path| path.to_string_lossy().ends_with(hex));
        found.unwrap_or_else(|| panic!("the cache does not have {digest}: {:#?}", all_files(&self.cache())))
    }

    /// Empties the daemon, like on a new machine.
    pub fn wiped(&self) -> &Self {
        self.daemon.solver.wipe();
        self.daemon.images.lock().unwrap().clear();
        self
    }

    /// Runs a command with the options that all commands share.
    pub fn hakobi(&self, command: &str, more: &[&str]) -> Run {
        Run::of(&mut self.command(command, more))
    }

    /// Returns a command with the options that all commands share.
    pub fn command(&self, command: &str, more: &[&str]) -> Command {
        let image = format!("{}/app:1", self.registry_host());
        let repository = format!("oci://{}/cache", self.registry_host());
        let bucket = format!("s3://{BUCKET}/app");
        let cache = match self.place {
            Place::Directory => ["--cache", "../cache"],
            Place::Beside => ["--cache-from", &image],
            Place::Repository => ["--cache", &repository],
            Place::S3 => ["--cache", &bucket],
        };
        let own = [&[command, "--progress", "plain", "-t", &image], &cache[..]].concat();
        let mut hakobi = self.machine.command(env!("CARGO_BIN_EXE_hakobi"));
        hakobi.args([&own[..], more, &["."]].concat());
        hakobi
    }

    /// Builds and pushes, and sends the build a signal whenever one is due. Returns how it ended, and how many signals it got.
    pub fn stopped_build(&self, signal: &str, is_due: impl Fn(usize) -> bool) -> (ExitStatus, usize) {
        let mut child = self.command("build", &["--push"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut sent = 0;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return (status, sent);
            }
            if is_due(sent) {
                let arguments = [format!("-{signal}"), child.id().to_string()];
                assert!(Command::new("kill").args(arguments).status().unwrap().success());
                sent += 1;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Builds and pushes, even if the build fails.
    pub fn try_build(&self, more: &[&str]) -> Run {
        self.hakobi("build", &[&["--push", "--report", "../report.json"], more].concat())
    }

    /// The same, but kills a build that runs for longer than `limit`.
    pub fn build_within(&self, limit: Duration) -> Run {
        Run::within(&mut self.command("build", &["--push", "--report", "../report.json"]), limit)
    }

    /// Builds and pushes, and compares the image with the model's own build.
    #[track_caller]
    pub fn build(&self, more: &[&str]) -> Built {
        self.daemon.ran.lock().unwrap().clear();
        let run = self.try_build(more).exits(0);
        self.right(run)
    }

    /// Checks the result of a build that succeeded, and compares its image with the model's own build.
    #[track_caller]
    pub fn right(&self, run: Run) -> Built {
        let ran = std::mem::take(&mut *self.daemon.ran.lock().unwrap());
        let built = Built { report: self.machine.report("../report.json"), ran, stderr: run.stderr };
        same_image(&self.image(), &self.plain(), &built.stderr);
        built
    }

    /// Returns the pushed image.
    pub fn image(&self) -> Image {
        self.registry.image("app", "1")
    }

    /// Returns the image that the model builds of the project without hakobi.
    pub fn plain(&self) -> Image {
        runtime().block_on(plain(&self.machine.folder())).unwrap()
    }
}

/// Returns all files below a directory.
pub fn all_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { all_files(&path) } else { vec![path] }).collect()
}
