//! Tests advice on handmade graphs.

use super::*;
use crate::graph::testing::Made;
use crate::graph::{Input, Keys};
use crate::hidden::Hidden;
use crate::plan::KnownFacts;

/// A Dockerfile with one stage, made line by line.
struct Script {
    made: Made,
    last: Input,
    context: Input,
    line: i32,
    text: String,
    inputs: Inputs,
}

impl Script {
    fn on(base: &str) -> Self {
        let mut made = Made::default();
        let last = made.source(&format!("docker-image://docker.io/library/{base}"));
        let context = made.source("local://context");
        let name = base.split('@').next().unwrap_or(base);
        made.name(&last, "[1/9] FROM base", 1);
        Self { made, last, context, line: 1, text: format!("FROM {name}\n"), inputs: Inputs::default() }
    }

    fn line(&mut self, text: &str) -> &mut Self {
        self.line += 1;
        self.text.push_str(&format!("{text}\n"));
        self
    }

    fn run(&mut self, command: &str, env: &[&str], seconds: f64) -> &mut Self {
        self.run_with(command, env, seconds, pb::Mount { dest: "/tmp".to_owned(), input: -1, output: -1, ..Default::default() })
    }

    fn run_with(&mut self, command: &str, env: &[&str], seconds: f64, mount: pb::Mount) -> &mut Self {
        let env: Vec<String> = env.iter().map(|one| (*one).to_owned()).collect();
        let args = ["/bin/sh", "-c", command].map(ToOwned::to_owned).to_vec();
        let meta = pb::Meta { args, env, cwd: "/".to_owned(), ..pb::Meta::default() };
        let root = pb::Mount { dest: "/".to_owned(), ..pb::Mount::default() };
        let exec = pb::ExecOp { meta: Some(meta), mounts: vec![root, mount], ..pb::ExecOp::default() };
        self.line(&format!("RUN {command}"));
        let last = self.made.on(&[&self.last.clone()], pb::op::Op::Exec(exec));
        self.put(last, &format!("RUN {command}"), Some(seconds), &[])
    }

    fn copy(&mut self, from: &str, files: &[(&str, &str)]) -> &mut Self {
        let copy = pb::FileActionCopy { src: from.to_owned(), dest: "/app".to_owned(), ..Default::default() };
        let action =
            pb::FileAction { input: 0, secondary_input: 1, output: 0, action: Some(pb::file_action::Action::Copy(copy)) };
        let inputs = [self.last.clone(), self.context.clone()];
        self.line(&format!("COPY {from} /app"));
        let last = self.made.on(&[&inputs[0], &inputs[1]], pb::op::Op::File(pb::FileOp { actions: vec![action] }));
        self.put(last, &format!("COPY {from} /app"), None, files)
    }

    fn put(&mut self, state: Input, instruction: &str, seconds: Option<f64>, files: &[(&str, &str)]) -> &mut Self {
        self.made.name(&state, &format!("[{}/9] {instruction}", self.line), self.line);
        self.last = state;
        let files = files.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())).collect();
        self.inputs.steps.push(StepInputs { seconds, files, ..StepInputs::default() });
        self
    }

    /// Returns the graph, and its inputs with measured times and copied files.
    fn ended(&mut self) -> (Graph, Inputs) {
        let mut made = std::mem::take(&mut self.made);
        made.text(&self.text);
        let graph = made.graph(&self.last);
        let facts = KnownFacts::default();
        let mut inputs = Inputs::new(&graph, &Keys::new(&graph, &facts), &facts, &Hidden::default());
        for (step, ours) in inputs.steps.iter_mut().zip(&self.inputs.steps) {
            (step.seconds, step.files) = (ours.seconds, ours.files.clone());
        }
        (graph, inputs)
    }
}

/// Returns the advice if all steps run.
fn texts(now: &mut Script, before: Option<&mut Script>) -> Vec<String> {
    let (graph, now) = now.ended();
    let before = before.map(|before| before.ended().1);
    let runs = graph.below(graph.result()).into_iter().map(|op| op.digest.clone()).collect();
    let all = advise(&graph, &runs, before.as_ref(), &now);
    all.into_iter().map(|advice| format!("{}:{} {}", advice.file, advice.line, advice.text)).collect()
}

#[test]
fn what_reads_few_files_goes_above_the_copy_of_all() {
    let project = [("package.json", "1"), ("package-lock.json", "1"), ("src/a.js", "1")];
    let cached =
        pb::Mount { dest: "/root/.npm".to_owned(), input: -1, mount_type: pb::MountType::Cache.into(), ..Default::default() };
    let mut script = Script::on("node:22@sha256:0");
    script.copy(".", &project).run_with("npm ci", &[], 41.2, cached.clone());
    assert_eq!(
        texts(&mut script, None),
        [
            "Dockerfile:2 `COPY . /app` is above `RUN npm ci` (line 3, 41 s when last measured), so the RUN runs again for every changed \
          file: copy only package.json and package-lock.json before the RUN, and everything else after it"
        ]
    );
    let none: [&str; 0] = [];
    // The copy takes only a part, the command is quick, or it is not known what the command reads.
    let mut script = Script::on("node:22@sha256:0");
    script.copy("src", &project).run_with("npm ci", &[], 41.2, cached.clone());
    assert_eq!(texts(&mut script, None), none);
    let mut script = Script::on("node:22@sha256:0");
    script.copy(".", &project).run_with("npm ci", &[], 0.4, cached.clone());
    assert_eq!(texts(&mut script, None), none);
    let mut script = Script::on("node:22@sha256:0");
    script.copy(".", &[("web/package.json", "1")]).run_with("npm ci", &[], 41.2, cached.clone());
    assert_eq!(texts(&mut script, None), none);
    // A copy below the command does not matter.
    let mut script = Script::on("node:22@sha256:0");
    script.run_with("npm ci", &[], 41.2, cached.clone()).copy(".", &project);
    assert_eq!(texts(&mut script, None), none);
    let mut script = Script::on("python:3@sha256:0");
    script.copy("/", &[("deps/all.txt", "1"), ("requirements.txt", "1")]);
    script.run_with("pip install -r deps/all.txt", &[], 9.94, cached.clone());
    script.run_with("apt-get update && apt-get install -y make", &[], 130.0, cached);
    let told = texts(&mut script, None);
    assert!(told[0].contains("2 min 10 s when last measured") && told[0].ends_with("move the RUN above the COPY"), "{told:?}");
    assert!(
        told[1].contains("9.9 s when last measured") && told[1].contains(": copy only deps/all.txt before the RUN"),
        "{told:?}"
    );
}

#[test]
fn downloads_without_a_cache_mount_name_one() {
    let mut script = Script::on("python:3@sha256:0");
    script.run("pip install --no-cache-dir flask", &[], 12.0).run("make", &[], 50.0);
    assert_eq!(
        texts(&mut script, None),
        ["Dockerfile:2 `RUN pip install --no-cache-dir flask` (12 s) starts from nothing each time it runs: write `RUN \
          --mount=type=cache,target=/root/.cache/pip pip install flask`"]
    );
    let mut script = Script::on("golang:1@sha256:0");
    script.run("go build -o /app .", &["GOPATH=/go"], 30.0);
    assert_eq!(
        texts(&mut script, None),
        ["Dockerfile:2 `RUN go build -o /app .` (30 s) starts from nothing each time it runs: write `RUN \
          --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build go build -o /app .`"]
    );
}

#[test]
fn outputs_are_copied_out_of_a_mount() {
    let build = |later: Option<&str>| {
        let mut script = Script::on("rust:1@sha256:0");
        script.run("cargo build --release", &["CARGO_HOME=/usr/local/cargo"], 60.0);
        if let Some(later) = later {
            script.run(later, &[], 0.1);
        }
        let stage = script.last.clone();
        let alpine = script.made.source("docker-image://docker.io/library/alpine:3@sha256:1");
        script.last = script.made.copy(&alpine, &stage, "/target/release/app");
        let last = script.last.clone();
        script.put(last, "COPY --from=build /target/release/app /copied/", None, &[]);
        texts(&mut script, None).remove(0)
    };
    let registry = "--mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
        --mount=type=cache,target=/usr/local/cargo/git/db,sharing=locked";
    let start = "Dockerfile:2 `RUN cargo build --release` (60 s) starts from nothing each time it runs: write `RUN";
    assert_eq!(
        build(None),
        format!(
            "{start} {registry} --mount=type=cache,target=/target,sharing=locked cargo build --release && mkdir -p /out && cp -r \
             /target/release/app /out/`, and copy from /out/ instead of /target/release/app: a mount is no part of the stage"
        )
    );
    assert_eq!(build(Some("strip target/release/app")), format!("{start} {registry} cargo build --release`"));
}

#[test]
fn variables_of_a_build_are_declared_low() {
    let script = |commit: &str, version: &str| {
        let mut script = Script::on("node:22@sha256:0");
        let (commit, version) = (format!("GIT_SHA={commit}"), format!("NODE_VERSION={version}"));
        let env = [&*commit, &*version];
        script.line("ARG GIT_SHA").run("make all", &env, 30.0).run("make docs", &env, 10.0);
        script.run("echo $GIT_SHA > /commit", &env, 0.1);
        script
    };
    assert_eq!(
        texts(&mut script("bbb", "2"), Some(&mut script("aaa", "1"))),
        ["Dockerfile:2 GIT_SHA changed from aaa to bbb, so `RUN make all` (line 3) and one more step ran again (40 s) without \
          using it: declare it directly above the first step that uses it"]
    );
    let none: [&str; 0] = [];
    assert_eq!(texts(&mut script("aaa", "1"), Some(&mut script("aaa", "1"))), none);
    assert_eq!(texts(&mut script("bbb", "1"), None), none, "nobody knows what it was");
}

#[test]
fn bases_that_move_are_told_with_their_digests() {
    let script = |base: &str| {
        let mut script = Script::on(base);
        script.run("make", &[], 20.0).run("make more", &[], 30.0);
        script
    };
    let (old, new) = ("python:3.12@sha256:0123456789abcdef", "python:3.12@sha256:fedcba9876543210");
    assert_eq!(
        texts(&mut script(new), Some(&mut script(old))),
        [
            "Dockerfile:1 python:3.12 moved from sha256:0123456789ab to sha256:fedcba987654 since the last build, so all steps on it run \
          again (50 s): pin it with `python:3.12@sha256:fedcba9876543210`, or use a registry of your own in which you decide when it \
          moves"
        ]
    );
    let mut pinned = script(new);
    pinned.text = pinned.text.replace("python:3.12", new);
    assert_eq!(texts(&mut pinned, Some(&mut script(old))), [""; 0]);
}

#[test]
fn files_that_no_image_is_made_of_are_named() {
    let script = |files: &[(&str, &str)]| {
        let mut script = Script::on("node:22@sha256:0");
        script.copy(".", files).run("make", &[], 7.0);
        script
    };
    let mut before = script(&[(".git/index", "1"), (".git/HEAD", "1"), ("README.md", "1"), ("a.js", "1")]);
    let mut now = script(&[(".git/index", "2"), (".git/HEAD", "2"), ("README.md", "2"), ("a.js", "1")]);
    let (graph, ended) = now.ended();
    // The base image does not run.
    let runs = ended.steps.len();
    let runs = graph.below(graph.result()).into_iter().rev().take(runs).map(|op| op.digest.clone()).collect();
    let told = advise(&graph, &runs, Some(&before.ended().1), &ended);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        told[0].text,
        "`COPY . /app` ran again (7.0 s with the steps on it) only because of .git and README.md: if the image does not need it, \
         name it in .dockerignore"
    );
    let mut other = script(&[(".git/index", "2"), ("a.js", "2")]);
    assert_eq!(texts(&mut other, Some(&mut script(&[(".git/index", "1"), ("a.js", "1")]))), [""; 0]);
}

#[test]
fn what_takes_longest_is_told_first_and_not_too_much() {
    let mut script = Script::on("python:3@sha256:0");
    for seconds in [3.0, 9.0, 1.0, 5.0, 4.0, 8.0, 0.9] {
        script.run(&format!("pip install flask # {seconds}"), &[], seconds);
    }
    let (graph, inputs) = script.ended();
    let runs = graph.below(graph.result()).into_iter().map(|op| op.digest.clone()).collect();
    let seconds: Vec<_> = advise(&graph, &runs, None, &inputs).into_iter().filter_map(|advice| advice.seconds).collect();
    assert_eq!(seconds, [9.0, 8.0, 5.0, 4.0, 3.0]);
    assert_eq!(advise(&graph, &HashSet::new(), None, &inputs), [], "a step that is kept downloads nothing");
}

#[test]
fn seconds_are_carried_over_from_the_last_build() {
    let mut script = Script::on("python:3@sha256:0");
    script.run("make", &[], 5.0).run("make more", &[], 6.0);
    let (graph, before) = script.ended();
    let ops: Vec<Digest> = explained(&graph).into_iter().map(|op| op.digest.clone()).collect();
    let mut now = before.clone();
    now.steps.iter_mut().for_each(|step| step.seconds = None);
    crate::plan::measure(&mut now, &graph, &HashMap::from([(ops[1].clone(), 2.0)]), Some(&before));
    assert_eq!(now.steps.iter().map(|step| step.seconds).collect::<Vec<_>>(), [Some(5.0), Some(2.0)]);
    let read: Inputs = serde_json::from_str(&serde_json::to_string(&before).unwrap().replace(",\"seconds\":5.0", "")).unwrap();
    assert_eq!(read.steps[0].seconds, None, "records of before have none");
}
