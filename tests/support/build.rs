//! A run of `hakobi build` with a test's options ([`Build`]), and its result ([`Built`]).

use std::fmt::{self, Display, Formatter};
use std::ops::Index;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::engine::Engine;
use super::machine::{Machine, Run};

/// An address without a daemon.
pub const NO_DAEMON: &str = "unix:///nowhere/docker.sock";

/// The options of one `hakobi build` of a machine's project. Each method adds options. A test can run a build several times.
#[derive(Clone)]
pub struct Build<'a> {
    machine: &'a Machine,
    options: Vec<String>,
    report: Option<String>,
    daemon: Option<String>,
}

impl<'a> Build<'a> {
    /// Creates a build with `--network host`, because the tests' engines have no other network for RUN.
    pub fn new(machine: &'a Machine) -> Self {
        let options = ["--network", "host"].map(str::to_owned).into();
        Self { machine, options, report: None, daemon: None }
    }

    /// Creates a build with a report and a cache. Both are next to the project, and so not part of its context.
    pub fn cached(machine: &'a Machine) -> Self {
        Self::new(machine).report("../report.json").cache("../cache")
    }

    /// Adds these options verbatim.
    pub fn with(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// Names the image. Unless the build pushes, the image stays in the daemon.
    pub fn tag(self, image: &str) -> Self {
        self.with(&["-t", image])
    }

    /// Names the image and pushes it.
    pub fn push(self, image: &str) -> Self {
        self.tag(image).with(&["--push"])
    }

    /// Sets the cache's location.
    pub fn cache(self, place: &str) -> Self {
        self.with(&["--cache", place])
    }

    /// Sets the scope of the cache that the build writes.
    pub fn scope(self, scope: &str) -> Self {
        self.with(&["--cache-scope", scope])
    }

    /// Sets what plans the build: `auto` is hakobi, `daemon` is BuildKit.
    pub fn strategy(self, strategy: &str) -> Self {
        self.with(&["--strategy", strategy])
    }

    /// Sets how layers reach the daemon: `registry` or `archive`.
    pub fn transport(self, transport: &str) -> Self {
        self.with(&["--transport", transport])
    }

    /// Sets how the build shows its progress.
    pub fn progress(self, mode: &str) -> Self {
        self.with(&["--progress", mode])
    }

    /// Sets the file of the report, instead of an earlier one.
    pub fn report(mut self, path: &str) -> Self {
        self.report = Some(path.to_owned());
        self
    }

    /// Runs against the daemon at this address instead of the machine's own.
    pub fn on(mut self, daemon: &str) -> Self {
        self.daemon = Some(daemon.to_owned());
        self
    }

    /// Returns the arguments. They begin with `build`, and end with the context.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["build".to_owned()];
        arguments.extend(self.options.iter().cloned());
        if let Some(report) = &self.report {
            arguments.extend(["--report".to_owned(), report.clone()]);
        }
        arguments.push(".".to_owned());
        arguments
    }

    /// Returns the command, for a test that acts while it runs.
    pub fn command(&self) -> Command {
        let mut command = self.machine.command(env!("CARGO_BIN_EXE_hakobi"));
        command.args(self.arguments());
        if let Some(daemon) = &self.daemon {
            command.env("DOCKER_HOST", daemon);
        }
        command
    }

    /// Runs the build, even if it fails.
    pub fn run(&self) -> Run {
        Run::of(&mut self.command())
    }

    /// Wipes the engine first, so that the build runs like on a new machine. Does not check the exit code.
    pub fn run_on_empty(&self, engine: &Engine) -> Run {
        engine.wipe();
        self.run()
    }

    /// Starts the build and discards its output.
    pub fn start(&self) -> Child {
        self.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs the build and reads its report. Fails the test if the build fails.
    #[track_caller]
    pub fn done(&self) -> Built {
        self.built(self.run().exits(0))
    }

    /// Reads the report of a run of this build.
    #[track_caller]
    pub fn built(&self, run: Run) -> Built {
        Built { run, report: self.machine.report(self.report.as_deref().expect("a build with a report")) }
    }

    /// Wipes the engine first, so that the build runs like on a new machine. Fails the test if the build fails.
    #[track_caller]
    pub fn done_on_empty(&self, engine: &Engine) -> Built {
        engine.wipe();
        self.done()
    }
}

/// The result of a build that succeeded. `built["key"]` reads the report. As text it is the whole report and the whole log.
pub struct Built {
    pub run: Run,
    pub report: Value,
}

impl Built {
    /// Fails the test if the build has another tier.
    #[track_caller]
    pub fn is(self, tier: &str) -> Self {
        assert_eq!(self.tier(), tier, "{self}");
        self
    }

    /// Returns the tier in the report.
    pub fn tier(&self) -> &str {
        self["tier"].as_str().unwrap_or_default()
    }

    /// Returns the build's standard error.
    pub fn log(&self) -> &str {
        &self.run.stderr
    }

    /// Returns the digest of the first image.
    pub fn digest(&self) -> &str {
        self["images"][0]["digest"].as_str().unwrap_or_default()
    }

    /// Returns the instructions with this status, in the order of their lines.
    pub fn steps(&self, status: &str) -> Vec<String> {
        steps(&self.report, status)
    }

    /// Returns the instructions that ran, in the order of their lines.
    pub fn misses(&self) -> Vec<String> {
        self.steps("miss")
    }

    /// Returns the status of each step, in the report's order.
    pub fn statuses(&self) -> Vec<&str> {
        self.texts("status")
    }

    /// Returns the reasons of all steps that have one, in the report's order.
    pub fn reasons(&self) -> Vec<&str> {
        self.texts("reason")
    }

    /// Returns the reason why this instruction ran. Returns an empty text if there is none.
    pub fn reason(&self, instruction: &str) -> &str {
        let step = self["steps"].as_array().into_iter().flatten().find(|step| step["instruction"] == instruction);
        step.and_then(|step| step["reason"].as_str()).unwrap_or_default()
    }

    fn texts(&self, key: &str) -> Vec<&str> {
        self["steps"].as_array().into_iter().flatten().filter_map(|step| step[key].as_str()).collect()
    }

    /// Returns the warnings about the cache.
    pub fn warnings(&self) -> Vec<&str> {
        self["cache"]["warnings"].as_array().expect("warnings").iter().map(|text| text.as_str().unwrap()).collect()
    }

    /// Returns whether a warning about the cache contains this text.
    pub fn warns_of(&self, words: &str) -> bool {
        self.warnings().iter().any(|warning| warning.contains(words))
    }

    /// Returns `by hakobi` or `by skeleton` for a build that appended layers, and `None` for any other build. With a skeleton the
    /// daemon makes the layers.
    pub fn appended(&self) -> Option<&'static str> {
        let by_skeleton = self.log().contains("reading the base's paths");
        (self.tier() == "append").then_some(if by_skeleton { "by skeleton" } else { "by hakobi" })
    }

    /// Returns the number of layers that were `restored`, `pushed`, `saved` or `already_in_registry`.
    #[track_caller]
    pub fn layers(&self, what: &str) -> u64 {
        self.number("layers", what)
    }

    /// Returns the number of bytes that were `restored`, `pushed`, `saved` or sent as the `context`.
    #[track_caller]
    pub fn bytes(&self, what: &str) -> u64 {
        self.number("bytes", what)
    }

    #[track_caller]
    fn number(&self, of: &str, what: &str) -> u64 {
        self[of][what].as_u64().unwrap_or_else(|| panic!("no {of} {what}: {self}"))
    }
}

impl Index<&str> for Built {
    type Output = Value;

    fn index(&self, key: &str) -> &Value {
        &self.report[key]
    }
}

impl Display for Built {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#}\n--- stderr\n{}", self.report, self.run.stderr)
    }
}

/// Returns the instructions of a report or a plan with this status, in the order of their lines.
pub fn steps(report: &Value, status: &str) -> Vec<String> {
    let steps = report["steps"].as_array().into_iter().flatten().filter(|step| step["status"] == status);
    let mut steps: Vec<_> = steps.collect();
    steps.sort_by_key(|step| step["line"].as_u64());
    steps.into_iter().map(|step| step["instruction"].as_str().unwrap_or_default().to_owned()).collect()
}
