//! Tests the advice after real builds: a build measures its steps, and the next build and `hakobi plan` advise on them.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::Value;
use support::build::Build;
use support::engine::{C28, D28, Engine};
use support::image::{base, unique_image};
use support::machine::Machine;

#[test]
fn advice_has_lines_and_measured_seconds() {
    for name in [D28, C28] {
        let engine = Engine::lock(name);
        let machine = Machine::with(&engine.host());
        let base = base("busybox");
        // The package manager takes its time.
        let manager = "RUN printf '#!/bin/sh\\nsleep 2\\n' > /bin/npm && chmod +x /bin/npm";
        let dockerfile = format!("FROM {base}\n{manager}\nARG GIT_SHA=none\nCOPY . /app\nRUN npm ci\nRUN echo $GIT_SHA > /sha\n");
        machine.write("Dockerfile", &dockerfile).write("package.json", "{}").write("main.js", "one\n");
        machine.write(".dockerignore", "Dockerfile\n");
        let image = unique_image("advice");
        let build = Build::cached(&machine).strategy("auto").push(&image);
        let cold = build.done_on_empty(&engine);
        let about = |report: &Value| {
            let all = report["advice"].as_array().unwrap().iter();
            all.map(|one| (one["line"].as_u64().unwrap(), one["text"].as_str().unwrap().to_owned())).collect::<Vec<_>>()
        };
        let told = about(&cold.report);
        assert_eq!(told.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4, 5], "{told:?}");
        assert!(told[0].1.contains("copy only package.json before the RUN"), "{told:?}");
        assert!(told[1].1.contains("--mount=type=cache,target=/root/.npm"), "{told:?}");
        let seconds = cold["advice"][0]["seconds"].as_f64().unwrap();
        assert!((2.0..20.0).contains(&seconds), "{seconds}");
        assert!(cold.log().contains("advice: Dockerfile:4: `COPY . /app` is above `RUN npm ci`"), "{cold}");

        // What nothing runs for is told of by what it took then.
        let plan = |more: &[&str]| {
            let own = ["plan", "--network", "host", "--cache", "../cache", "-t", &image];
            machine.hakobi(&[&own[..], more, &["."]].concat()).exits(0).stdout
        };
        let same = plan(&[]);
        assert!(same.contains("nothing changed: no step runs\nadvice      Dockerfile:4: `COPY . /app` is above"), "{same}");
        assert!(!same.contains("type=cache"), "{same}");
        let json: Value = serde_json::from_str(&plan(&["--format", "json", "--build-arg", "GIT_SHA=0a1b2c3"])).unwrap();
        let told = about(&json);
        let moved = told.iter().find(|(line, _)| *line == 3).map(|(_, text)| text.clone()).unwrap_or_default();
        assert!(moved.starts_with("GIT_SHA changed from none to 0a1b2c3, so `RUN npm ci` (line 5)"), "{told:?}");

        // A build of which nothing ran knows the seconds still, for the next.
        machine.write("Dockerfile", &format!("{dockerfile}RUN true\n"));
        let more = build.done_on_empty(&engine);
        assert_eq!(more["advice"][0]["line"], 4, "{more}");
        assert_eq!(more["advice"][0]["seconds"], seconds, "{more}");

        machine.write("README.md", "new\n");
        let told = about(&build.done_on_empty(&engine).report);
        assert!(told.iter().any(|(line, text)| *line == 4 && text.contains("only because of README.md")), "{told:?}");
    }
}
