//! Tests file names that are not UTF-8, on every engine and in every tier: hakobi's images equal those of `docker build`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use support::build::Build;
use support::engine::{C28, D20, D28, Engine};
use support::image::{base, config, flattened, unique_image};
use support::machine::Machine;
use support::plain::plain_build;

/// `café` in Latin-1.
const CAFE: &[u8] = b"caf\xe9";

/// A job's machine with an image that it builds, and the same by plain docker.
struct Job<'a> {
    engine: &'a Engine,
    machine: Machine,
    image: String,
}

impl<'a> Job<'a> {
    fn new(engine: &'a Engine) -> Self {
        let machine = Machine::with(&engine.host());
        Self { engine, machine, image: unique_image("names") }
    }

    fn build(&self) -> Build<'_> {
        Build::cached(&self.machine).push(&self.image)
    }

    /// One run on a machine whose Docker is empty.
    fn runs_as(&self, tier: &str) {
        let built = self.build().done_on_empty(self.engine).is(tier);
        assert_eq!(built.warnings(), [""; 0], "{}: {built}", self.engine.name());
    }

    /// The image is the one that plain docker makes of the same context.
    fn is_dockers(&self) {
        self.engine.wipe();
        let plain = unique_image("names-plain");
        plain_build(self.engine, &self.machine, &plain, &[]).exits(0);
        assert_eq!(flattened(&self.image), flattened(&plain), "{}", self.engine.name());
        assert_eq!(config(&self.image), config(&plain));
    }

    fn put(&self, directory: &str, name: &[u8], text: &str) {
        let directory = self.machine.folder().join(directory);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(OsStr::from_bytes(name)), text).unwrap();
    }
}

fn what_is_not_sent_is_no_matter(name: &'static str) {
    let engine = Engine::lock(name);
    let job = Job::new(&engine);
    job.put("src", CAFE, "not copied");
    job.put("ignored", CAFE, "ignored");
    job.put("ignored/\u{f0080}", b"also", "ignored");
    job.machine
        .write("Dockerfile", &format!("FROM {}\nCOPY src/a /src/a\nCOPY ignored /x\n", base("busybox")))
        .write(".dockerignore", "ignored/c*\n")
        .write("src/a", "one");
    job.runs_as("cold");
    job.is_dockers();
    job.runs_as("unchanged");
    job.machine.write("src/a", "two");
    job.runs_as("append");
    job.is_dockers();
}

#[test]
fn what_is_not_sent_is_no_matter_d20() {
    what_is_not_sent_is_no_matter(D20);
}

#[test]
fn what_is_not_sent_is_no_matter_d28() {
    what_is_not_sent_is_no_matter(D28);
}

#[test]
fn what_is_not_sent_is_no_matter_c28() {
    what_is_not_sent_is_no_matter(C28);
}

fn with_odd_context(job: &Job<'_>) {
    job.put("d", CAFE, "one");
    job.put("d/a-\u{e9}", b"\xe9\n", "two");
    job.put("d", b"\xf0\x9f", "three");
    job.put("d", "\u{f0080}".as_bytes(), "four");
    symlink(OsStr::from_bytes(b"t\xe9"), job.machine.folder().join("d/link")).unwrap();
    job.machine.write("Dockerfile", &format!("FROM {}\nCOPY d /d\nCOPY d/c*? /e/\n", base("busybox"))).write("d/z", "z");
}

/// Docker 20.10's messages carry such names.
#[test]
fn what_is_sent_is_as_it_is_on_docker_20_10() {
    let engine = Engine::lock(D20);
    let job = Job::new(&engine);
    with_odd_context(&job);
    job.runs_as("cold");
    job.is_dockers();
    job.runs_as("unchanged");
    job.machine.write("d/z", "changed");
    job.runs_as("append");
    job.is_dockers();
    job.put("d", CAFE, "changed");
    job.runs_as("append");
    job.is_dockers();
}

/// Later ones' do not: docker fails, and hakobi says which name it is.
#[test]
fn what_cannot_be_sent_is_named() {
    for name in [D28, C28] {
        let engine = Engine::lock(name);
        let job = Job::new(&engine);
        with_odd_context(&job);
        let docker = plain_build(&engine, &job.machine, &unique_image("names-plain"), &[]);
        assert!(docker.code != 0 && docker.stderr.contains("invalid UTF-8"), "{}", docker.stderr);
        let told = job.build().run_on_empty(&engine).exits(1).stderr;
        assert!(told.contains("\\xe9") && told.contains("rename it"), "{name}: {told}");
        assert!(!Path::new(&job.machine.folder().join("../cache/steps")).exists(), "nothing is remembered");
    }
}

fn what_a_stage_made_is_copied(name: &'static str) {
    let engine = Engine::lock(name);
    let job = Job::new(&engine);
    let base = base("busybox");
    let odd = "\"$(printf '/d/caf\\351')\"";
    job.machine
        .write(
            "Dockerfile",
            &format!(
                "FROM {base} AS made\nRUN mkdir /d && echo hi >{odd} && ln -s \"$(printf 't\\351')\" /d/link && touch /d/plain\n\
                 FROM {base}\nCOPY --from=made /d /e\nCOPY --from=made /d/c* /f/\nCOPY a /e/a\n"
            ),
        )
        .write("a", "one");
    job.runs_as("cold");
    job.is_dockers();
    job.runs_as("unchanged");
    job.machine.write("a", "two");
    job.runs_as("append");
    job.is_dockers();
}

#[test]
fn what_a_stage_made_is_copied_d20() {
    what_a_stage_made_is_copied(D20);
}

#[test]
fn what_a_stage_made_is_copied_d28() {
    what_a_stage_made_is_copied(D28);
}

#[test]
fn what_a_stage_made_is_copied_c28() {
    what_a_stage_made_is_copied(C28);
}

/// Also where what is copied lands in a directory with such a name.
fn what_a_base_holds_is_laid_on(name: &'static str) {
    let engine = Engine::lock(name);
    let job = Job::new(&engine);
    let odd = "\"$(printf '/d/caf\\351')\"";
    job.machine
        .write("Dockerfile", &format!("FROM {}\nRUN mkdir -p {odd} && ln -s {odd} /to && touch {odd}/x\n", base("busybox")))
        .write("base", "");
    let base = unique_image("names-base");
    engine.wipe();
    plain_build(&engine, &job.machine, &base, &[]).exits(0);
    job.machine.write("Dockerfile", &format!("FROM {base}\nCOPY a /a\nCOPY a /to/\n")).write("a", "one");
    job.runs_as("cold");
    job.is_dockers();
    job.runs_as("unchanged");
    job.machine.write("a", "two");
    job.runs_as("append");
    job.is_dockers();
}

#[test]
fn what_a_base_holds_is_laid_on_d20() {
    what_a_base_holds_is_laid_on(D20);
}

#[test]
fn what_a_base_holds_is_laid_on_d28() {
    what_a_base_holds_is_laid_on(D28);
}

#[test]
fn what_a_base_holds_is_laid_on_c28() {
    what_a_base_holds_is_laid_on(C28);
}
