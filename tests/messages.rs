//! Tests the messages of failures: docker's own text and lines, the state of the daemon, and the reason why a step ran.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "messages/broken.rs"]
mod broken;
mod support;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use broken::BROKEN;
use support::build::Build;
use support::engine::{C28, D20, D28, Engine};
use support::image::{base, unique_image};
use support::machine::{Machine, Run};
use support::parts::part;

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
fn docker(machine: &Machine) -> Run {
    let arguments = ["build", "--network", "host", "--progress", "plain", "."];
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
        let theirs = docker(&machine);
        let ours = Build::new(&machine).progress("plain").cache("../cache").run();
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

/// Reads the output of a build until its step says that it runs.
fn until_it_runs(stderr: &mut std::process::ChildStderr) -> String {
    let (mut told, mut bytes) = (String::new(), [0; 4096]);
    while !told.contains(" it runs") {
        let read = stderr.read(&mut bytes).unwrap();
        assert!(read > 0, "{told}");
        told.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    told
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
        let mut hakobi = Build::new(&machine).progress("plain").cache("../cache").command();
        let mut running = hakobi.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let mut stderr = running.stderr.take().unwrap();
        let mut told = until_it_runs(&mut stderr);
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

/// A network between this host and the build, as between a CI machine and a daemon elsewhere.
struct Far;

impl Far {
    const HOST: &str = "10.213.77.1";

    fn ip(arguments: &str) {
        assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
    }

    fn open() -> Self {
        let own = format!("{}/30", Self::HOST);
        Self::ip("netns add hakobi-far");
        let far = Self;
        Self::ip("link add hakobi-near type veth peer name hakobi-far netns hakobi-far");
        Self::ip(&format!("addr add {own} dev hakobi-near"));
        Self::ip("link set hakobi-near up");
        Self::ip("-n hakobi-far addr add 10.213.77.2/30 dev hakobi-far");
        Self::ip("-n hakobi-far link set hakobi-far up");
        Self::ip("-n hakobi-far link set lo up");
        far
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", "hakobi-far"]).status();
    }
}

/// Copies between a client and the engine.
fn serve_tcp(engine: &Engine) -> String {
    let listener = TcpListener::bind((Far::HOST, 0)).unwrap();
    let (address, engine) = (listener.local_addr().unwrap().to_string(), engine.socket().to_owned());
    std::thread::spawn(move || {
        for ours in listener.incoming() {
            let (ours, theirs) = (ours.unwrap(), std::os::unix::net::UnixStream::connect(&engine).unwrap());
            let (mut from, mut to) = (ours.try_clone().unwrap(), theirs.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            let (mut from, mut to) = (theirs, ours);
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        }
    });
    address
}

/// Nothing says that the other side is gone: only the kernel can notice.
#[test]
#[ignore = "long"]
fn long_a_network_that_goes_away_is_noticed() {
    let engine = Engine::lock(D28);
    let _far = Far::open();
    let machine = Machine::with(&format!("tcp://{}", serve_tcp(&engine)));
    machine.write("Dockerfile", &format!("FROM {}\nRUN echo it runs; sleep 33\n", base("busybox")));
    let build = Build::new(&machine).progress("plain").with(&["--network", "host"]);
    let mut hakobi = machine.command("ip");
    hakobi.args(["netns", "exec", "hakobi-far", env!("CARGO_BIN_EXE_hakobi")]).args(build.arguments());
    let mut running = hakobi.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut stderr = running.stderr.take().unwrap();
    let mut told = until_it_runs(&mut stderr);
    Far::ip("link set hakobi-near down");
    stderr.read_to_string(&mut told).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(1), "{told}");
    assert!(told.contains("lost the Docker daemon") && told.contains("hint: "), "{told}");
}

#[test]
fn several_platforms_on_overlay2_are_refused_with_advice() {
    for name in [D20, D28] {
        let engine = Engine::lock(name);
        let machine = Machine::with(&engine.host());
        machine.write("Dockerfile", "FROM scratch\nCOPY a /\n").write("a", "a\n");
        let platforms = ["--platform", "linux/amd64,linux/arm64"];
        let told = Build::new(&machine).with(&platforms).cache("../cache").tag("app:1").run().exits(1);
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
    let image = unique_image("reasons");
    let built = Build::cached(&machine).push(&image).done();
    // The layers of two stages with two steps each; the base came through hakobi, and no configuration and no index is counted.
    assert_eq!(built.layers("saved"), 4, "{built}");

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
    // The copy below the command is as it was, and runs again for the times of its files.
    assert!(why(&told, 0).starts_with("copied again: "), "{told:#?}");
    assert_eq!(why(&told, 1), "ENV MODE was fast, now slow", "{told:#?}");

    machine.write("Dockerfile", &dockerfile("compile")).write("app-1.2", "changed\n");
    let told = reasons(&machine, &["-t", &image]);
    assert_eq!(why(&told, 0), "app-1.2 changed", "{told:#?}");
    assert!(told.iter().all(|(_, why)| why != "a new or changed line"), "{told:#?}");
}
