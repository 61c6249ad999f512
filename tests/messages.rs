//! Tests the messages of failures: docker's own text and lines, the state of the daemon, and the reason why a step ran.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use support::engine::{C28, D20, D28, Engine};
use support::image::base;
use support::machine::{Machine, Run};
use support::parts::part;

/// Dockerfiles that cannot be built. BASE is a base image, OPEN a registry, HTTP a server that has `/file` and nothing else.
const BROKEN: &[(&str, &str)] = &[
    ("unknown instruction", "FROM BASE\nRUNN true\n"),
    ("unknown instruction among others", "FROM BASE\n\n# a comment\nENV A=1\nRUN true\nWRONG x\nRUN true\nRUN true\nRUN true\n"),
    ("unknown flag of RUN", "FROM BASE\nRUN --nope=1 true\n"),
    ("unknown flag of COPY", "FROM BASE\nCOPY --nope a /\n"),
    ("unknown flag of ADD", "FROM BASE\nADD --unpac=true a /\n"),
    ("unknown flag of FROM", "FROM --os=linux BASE\n"),
    ("flag without value", "FROM BASE\nCOPY --from a /\n"),
    ("flag given twice", "FROM BASE\nCOPY --chown=1 --chown=2 a /\n"),
    ("bad mode in words", "FROM BASE\nCOPY --chmod=a+q a /\n"),
    ("bad mode in digits", "FROM BASE\nCOPY --chmod=999 a /\n"),
    ("unknown owner", "FROM BASE\nCOPY --chown=nobodyknows a /\n"),
    ("argument that must be given", "FROM BASE\nARG X\nENV Y=${X:?missing}\n"),
    ("argument that must be given in RUN's mount", "FROM BASE\nARG X\nRUN --mount=type=cache,target=${X:?missing} true\n"),
    ("argument that must be given in FROM", "ARG X\nFROM ${X:?missing}\n"),
    ("bad substitution", "FROM BASE\nENV Y=${X!bad}\n"),
    ("stages in the wrong order", "FROM BASE AS a\nCOPY --from=b /x /x\nFROM BASE AS b\nRUN echo > /x\nFROM a\n"),
    ("stage that takes from itself", "FROM BASE AS a\nCOPY --from=a /x /x\n"),
    ("invalid --from", "FROM BASE\nCOPY --from=UPPER /x /x\n"),
    ("invalid reference in --from", "FROM BASE\nCOPY --from=a::b /x /x\n"),
    ("missing base", "FROM OPEN/base/nothere:1\nRUN true\n"),
    ("missing base of another stage", "FROM BASE AS a\nRUN true\nFROM OPEN/base/nothere:2\nCOPY --from=a /bin/sh /x\n"),
    ("missing image in --from", "FROM BASE\nCOPY --from=OPEN/base/nothere:3 /x /x\n"),
    ("bad base", "FROM Base::x\n"),
    ("no base", "FROM\n"),
    ("too few words of FROM", "FROM BASE AS\n"),
    ("bad name of a stage", "FROM BASE AS Über\n"),
    ("no FROM", "RUN true\nFROM BASE\n"),
    ("COPY without destination", "FROM BASE\nCOPY a\n"),
    ("ENV without value", "FROM BASE\nENV A\n"),
    ("ENV with a stray word", "FROM BASE\nENV A=1 B\n"),
    ("LABEL without value", "FROM BASE\nLABEL a\n"),
    ("bad port", "FROM BASE\nEXPOSE 99999999\n"),
    ("WORKDIR without path", "FROM BASE\nWORKDIR\n"),
    ("unknown HEALTHCHECK", "FROM BASE\nHEALTHCHECK WRONG true\n"),
    ("bad interval", "FROM BASE\nHEALTHCHECK --interval=often CMD true\n"),
    ("unknown signal", "FROM BASE\nSTOPSIGNAL SIGNOPE\n"),
    ("SHELL that is no JSON", "FROM BASE\nSHELL /bin/sh -c\n"),
    ("ONBUILD FROM", "FROM BASE\nONBUILD FROM x\n"),
    ("heredoc without end", "FROM BASE\nRUN <<EOF\necho a\necho b\n"),
    ("heredoc that fails", "FROM BASE\nRUN <<EOF\nset -e\necho a\nfalse\nEOF\nRUN true\n"),
    ("several lines that fail", "FROM BASE\nRUN true\nRUN echo a && \\\n    # between\n    echo b && \\\n    exit 7\nENV X=1\n"),
    ("command that fails", "FROM BASE\nRUN exit 3\n"),
    ("unknown platform", "FROM --platform=amiga BASE\nRUN true\n"),
    ("bad platform", "FROM --platform=a/b/c/d/e BASE\n"),
    ("unknown mount", "FROM BASE\nRUN --mount=type=nope true\n"),
    ("unknown option of a mount", "FROM BASE\nRUN --mount=type=cache,targett=/x true\n"),
    ("mount without target", "FROM BASE\nRUN --mount=type=cache true\n"),
    ("bad sharing", "FROM BASE\nRUN --mount=type=cache,target=/x,sharing=some true\n"),
    ("secret that must be given", "FROM BASE\nRUN --mount=type=secret,id=abc,required=true cat /run/secrets/abc\n"),
    ("unknown network", "FROM BASE\nRUN --network=some true\n"),
    ("missing file", "FROM BASE\nCOPY nothere /\n"),
    ("missing file of a stage", "FROM BASE AS a\nRUN true\nFROM BASE\nCOPY --from=a /nothere /\n"),
    ("empty file", ""),
    ("comments alone", "# nothing\n"),
    (
        "wrong checksum",
        "FROM BASE\nADD --checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000 http://HTTP/file /\n",
    ),
    ("bad checksum", "FROM BASE\nADD --checksum=md5:00 http://HTTP/file /\n"),
    ("missing page", "FROM BASE\nADD http://HTTP/nothere /\n"),
    ("open quotes", "FROM BASE\nENV A=\"open\nRUN true\n"),
    ("unknown user", "FROM BASE\nUSER nobodyknows\nRUN true\n"),
    ("missing command", "FROM BASE\nRUN [\"/nothere\"]\n"),
    ("missing frontend", "# syntax=OPEN/base/nothere:9\nFROM BASE\n"),
];

/// A server that has one file; its address.
fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = [0; 4096];
            let read = stream.read(&mut asked).unwrap_or(0);
            let answer = match String::from_utf8_lossy(&asked[..read]).contains("/file ") {
                true => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
                false => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

/// `Dockerfile:3`, and the numbers of the lines that are marked.
fn lines(text: &str) -> (BTreeSet<String>, BTreeSet<u32>) {
    let is_place = |line: &&str| line.strip_prefix("Dockerfile:").is_some_and(|number| number.parse::<u32>().is_ok());
    let places = text.lines().map(|line| line.trim_start_matches("error: ")).filter(is_place).map(str::to_owned).collect();
    let marked = text.lines().filter_map(|line| line.split_once(" | >>> ")?.0.trim().parse().ok()).collect();
    (places, marked)
}

/// What docker says in the end, less what comes before it on its way.
fn words(stderr: &str) -> String {
    const BEFORE: [&str; 6] = [
        "failed to build: ",
        "failed to solve: ",
        "failed to solve with frontend dockerfile.v0: ",
        "failed to create LLB definition: ",
        "failed to run Build function: ",
        "rpc error: code = Unknown desc = ",
    ];
    let last = stderr.lines().rev().find_map(|line| line.strip_prefix("ERROR: ")).unwrap_or_default();
    let mut rest = last;
    while let Some(less) = BEFORE.iter().find_map(|before| rest.strip_prefix(before)) {
        rest = less;
    }
    // The daemon names a reference or a folder of this one build.
    match (rest.contains(" of ref ") || rest.contains("/overlay2/"), rest.rsplit_once(": ")) {
        (true, Some((_, end))) => end.to_owned(),
        _ => rest.to_owned(),
    }
}

/// docker's own build of the same folder: the oracle.
fn docker(machine: &Machine, arguments: &[&str]) -> Run {
    Run::of(machine.command(part("HAKOBI_TEST_DOCKER_CLI")).args(arguments).env("DOCKER_BUILDKIT", "1"))
}

fn failures_are_told_as_docker_tells_them(name: &'static str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    machine.write("a", "a\n");
    let server = server();
    let open = part("HAKOBI_TEST_REGISTRY_OPEN");
    let (mut wrong, mut with_lines) = (Vec::new(), 0);
    for (what, text) in BROKEN {
        machine.write("Dockerfile", &text.replace("BASE", &base("busybox")).replace("OPEN", &open).replace("HTTP", &server));
        let arguments = ["build", "--network", "host", "--progress", "plain", "."];
        let theirs = docker(&machine, &arguments);
        let ours = machine.hakobi(&[&arguments[..], &["--cache", "../cache"]].concat());
        let (expected, shown) = (lines(&theirs.stderr), lines(&ours.stderr));
        with_lines += usize::from(!expected.0.is_empty());
        // A daemon that does not say which lines are meant may be known better.
        let same_lines = expected.0.is_empty() || expected == shown;
        let code = i32::from(theirs.code != 0);
        if ours.code != code || !same_lines || !ours.stderr.contains(words(&theirs.stderr).trim()) {
            wrong.push(format!("== {what}: exit {code}, {expected:?}\n{}\n== hakobi: {shown:?}\n{}", theirs.stderr, ours.stderr));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), BROKEN.len(), wrong.join("\n"));
    // Docker 20.10 tells its client of no lines at all.
    assert!(with_lines >= 40 || name == D20, "docker shows lines of {with_lines} only");
}

#[test]
fn failures_are_told_as_docker_tells_them_on_docker_20() {
    failures_are_told_as_docker_tells_them(D20);
}

#[test]
fn failures_are_told_as_docker_tells_them_on_docker_28() {
    failures_are_told_as_docker_tells_them(D28);
}

#[test]
fn failures_are_told_as_docker_tells_them_on_the_containerd_store() {
    failures_are_told_as_docker_tells_them(C28);
}

#[test]
fn a_check_shows_the_lines_of_what_it_cannot_read() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    machine.write("Dockerfile", &format!("FROM {}\nRUN true\nRUNN a\n", base("busybox")));
    let told = machine.hakobi(&["build", "--check", "."]).exits(1);
    assert!(told.stderr.contains("Dockerfile:3\n") && told.stderr.contains("   3 | >>> RUNN a"), "{}", told.stderr);
}

#[test]
fn a_check_shows_its_warnings_beside_an_error() {
    let engine = Engine::lock(D28);
    let machine = Machine::with(&engine.host());
    for dockerfile in [
        "#check=error=true\nFROM scratch as base\ncopy Dockerfile .\n",
        "FROM --platform=$BULIDPLATFORM scratch\nCOPY Dockerfile .\n",
        "FROM scratch as base\nCOPY Dockerfile .\nFROM base\nCOPY --from=later / /\nFROM scratch AS later\n",
    ] {
        machine.write("Dockerfile", dockerfile);
        let mut docker = machine.command(part("HAKOBI_TEST_DOCKER_CLI"));
        let plain = Run::of(docker.env("DOCKER_HOST", engine.host()).args(["build", "--check", "."])).exits(1);
        let ours = machine.hakobi(&["build", "--check", "."]).exits(1);
        let lines = |text: &str| {
            let all = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("Check complete"));
            all.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
        };
        assert!(plain.stdout.contains("WARNING: "), "{}", plain.stdout);
        assert_eq!(lines(&ours.stdout), lines(&plain.stdout), "{}", ours.stderr);
        assert!(ours.stderr.contains("error: "), "{}", ours.stderr);
    }
}

/// A way to an engine that can be cut.
struct Bridge {
    address: String,
    open: std::sync::Arc<std::sync::Mutex<Option<Vec<std::os::unix::net::UnixStream>>>>,
    _folder: tempfile::TempDir,
}

impl Bridge {
    fn to(engine: &Engine) -> Self {
        use std::os::unix::net::{UnixListener, UnixStream};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let open = std::sync::Arc::new(std::sync::Mutex::new(Some(Vec::new())));
        let (all, engine) = (open.clone(), engine.socket().to_owned());
        std::thread::spawn(move || {
            for ours in listener.incoming() {
                let ours = ours.unwrap();
                let theirs = UnixStream::connect(&engine).unwrap();
                match &mut *all.lock().unwrap() {
                    Some(open) => open.extend([ours.try_clone().unwrap(), theirs.try_clone().unwrap()]),
                    // It is down.
                    None => continue,
                }
                for (mut from, mut to) in [
                    (ours.try_clone().unwrap(), theirs.try_clone().unwrap()),
                    (theirs.try_clone().unwrap(), ours.try_clone().unwrap()),
                ] {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Write);
                    });
                }
            }
        });
        Self { address: format!("unix://{}", path.display()), open, _folder: folder }
    }

    /// Breaks all connections off; afterwards it is up again, or down.
    fn cut(&self, is_up: bool) {
        let mut open = self.open.lock().unwrap();
        for stream in open.take().into_iter().flatten() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        *open = is_up.then(Vec::new);
    }
}

/// The daemon ends while a step runs.
#[test]
fn a_daemon_that_goes_away_is_told_of() {
    let engine = Engine::lock(D28);
    for is_up in [false, true] {
        let bridge = Bridge::to(&engine);
        let machine = Machine::with(&bridge.address);
        let seconds = if is_up { "31" } else { "32" };
        machine.write("Dockerfile", &format!("FROM {}\nRUN echo it runs; sleep {seconds}\n", base("busybox")));
        let mut hakobi = machine.command(env!("CARGO_BIN_EXE_hakobi"));
        hakobi.args(["build", "--network", "host", "--progress", "plain", "--cache", "../cache", "."]);
        let mut running = hakobi.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let mut told = String::new();
        let mut stderr = running.stderr.take().unwrap();
        let mut bytes = [0; 4096];
        while !told.contains(" it runs") {
            let read = stderr.read(&mut bytes).unwrap();
            assert!(read > 0, "{told}");
            told.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        bridge.cut(is_up);
        stderr.read_to_string(&mut told).unwrap();
        assert_eq!(running.wait().unwrap().code(), Some(1), "{told}");
        let expected = match is_up {
            true => "The daemon was restarted and answers again",
            false => "lost the Docker daemon, which no longer answers at",
        };
        assert!(told.contains(expected) && told.contains("hint: "), "{told}");
    }
}

#[test]
fn several_platforms_on_overlay2_are_refused_with_advice() {
    for name in [D20, D28] {
        let engine = Engine::lock(name);
        let machine = Machine::with(&engine.host());
        machine.write("Dockerfile", "FROM scratch\nCOPY a /\n").write("a", "a\n");
        let platforms = ["build", "--platform", "linux/amd64,linux/arm64", "--cache", "../cache", "-t", "app:1", "."];
        let told = machine.hakobi(&platforms).exits(1);
        for words in ["overlay2", "containerd image store", "https://docs.docker.com/go/build-multi-platform/"] {
            assert!(told.stderr.contains(words), "{words}: {}", told.stderr);
        }
    }
}

/// What `hakobi plan` says of each step that runs, by its instruction.
fn reasons(machine: &Machine, arguments: &[&str]) -> Vec<(String, String)> {
    let told =
        machine.hakobi(&[&["plan", "--network", "host", "--cache", "../cache", "--format", "json"], arguments, &["."]].concat());
    let told: serde_json::Value = serde_json::from_str(&told.exits(0).stdout).unwrap();
    let text = |step: &serde_json::Value, key: &str| step[key].as_str().unwrap().to_owned();
    let steps = told["steps"].as_array().unwrap().iter().filter(|step| step["status"] == "miss");
    steps.map(|step| (text(step, "instruction"), text(step, "reason"))).collect()
}

#[test]
fn a_plan_names_the_variable_and_no_line_behind_a_renamed_stage() {
    let engine = Engine::fresh(D28);
    let machine = Machine::with(&engine.host());
    let base = base("busybox");
    let dockerfile = |stage: &str| {
        format!(
            "FROM {base} AS {stage}\nARG VERSION=1.2\nENV MODE=fast\nCOPY app-$VERSION /app\n\
             RUN --mount=type=cache,target=/c,uid=1000 echo $VERSION $MODE > /out\n\
             FROM {base}\nCOPY --from={stage} /out /out\nRUN cat /out > /last\n"
        )
    };
    machine.write("Dockerfile", &dockerfile("build")).write("app-1.2", "one\n").write("app-1.3", "two\n");
    let image = format!("{}/{}:1", part("HAKOBI_TEST_REGISTRY_OPEN"), support::parts::unique("reasons"));
    let build = ["build", "--network", "host", "--cache", "../cache", "-t", &image, "--push", "--report", "report.json", "."];
    machine.hakobi(&build).exits(0);
    let saved = machine.report("report.json")["layers"]["saved"].as_u64().unwrap();
    // The layers of two stages with two steps each; the base came through hakobi, and no configuration and no index is counted.
    assert_eq!(saved, 4);

    let told = reasons(&machine, &["-t", &image, "--build-arg", "VERSION=1.3"]);
    let why = |told: &[(String, String)], place: usize| told.get(place).map(|(_, why)| why.clone()).unwrap_or_default();
    assert_eq!(why(&told, 0), "ARG VERSION was 1.2, now 1.3, app-1.3 is new, app-1.2 was removed", "{told:#?}");
    assert_eq!(why(&told, 1), "ARG VERSION was 1.2, now 1.3", "{told:#?}");
    assert!(why(&told, 2).starts_with("it builds on `RUN --mount"), "{told:#?}");
    assert!(
        told.iter().all(|(step, why)| !format!("{step}{why}").contains("internal") && !why.contains("permissions")),
        "{told:#?}"
    );

    machine.write("Dockerfile", &dockerfile("build").replace("MODE=fast", "MODE=slow"));
    let told = reasons(&machine, &["-t", &image]);
    assert_eq!(why(&told, 0), "ENV MODE was fast, now slow", "{told:#?}");

    machine.write("Dockerfile", &dockerfile("compile")).write("app-1.2", "changed\n");
    let told = reasons(&machine, &["-t", &image]);
    assert_eq!(why(&told, 0), "app-1.2 changed", "{told:#?}");
    assert!(told.iter().all(|(_, why)| why != "a new or changed line"), "{told:#?}");
}
