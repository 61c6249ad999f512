//! Tests against other processes of the host: what they can read of a run, how they can block it, and what a killed run leaves.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use support::build::Build;
use support::engine::{C28, D20, D28, Engine};
use support::image::{base, unique_image};
use support::machine::Machine;
use support::parts::part;

fn project(machine: &Machine) -> String {
    let text = format!("FROM {}\nRUN head -c 2000000 /dev/urandom >/large\nCOPY src.txt /\n", base("busybox"));
    machine.write("Dockerfile", &text).write("src.txt", "one\n");
    unique_image("attacks")
}

/// What of a text tells where a loopback endpoint is: an address of this host that is none of the tests' own, or its word.
fn leaks(text: &str) -> Vec<String> {
    let own = [part("HAKOBI_TEST_REGISTRY_OPEN"), part("HAKOBI_TEST_REGISTRY")];
    let addresses = text.match_indices("127.0.0.1:").map(|(at, _)| text[at..].split(['/', ' ', '"', '\n', '\'']).next().unwrap());
    let mut found: Vec<String> = addresses.filter(|address| !own.iter().any(|own| own == address)).map(str::to_owned).collect();
    let words = text.match_indices("hakobi-").map(|(at, _)| &text[at + 7..]);
    found.extend(words.filter_map(|word| {
        let word: String = word.chars().take_while(char::is_ascii_hexdigit).collect();
        (word.len() >= 32).then_some(word)
    }));
    found
}

/// Runs a build and looks at its standard error while it grows, as a process does that follows a job's log.
fn followed(build: &Build<'_>) -> (i32, String) {
    let mut child = build.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = stderr.read(&mut buffer) {
            all.extend_from_slice(&buffer[..read]);
            let leaks = leaks(&String::from_utf8_lossy(&all));
            assert!(leaks.is_empty(), "{leaks:?} in\n{}", String::from_utf8_lossy(&all));
        }
        String::from_utf8_lossy(&all).into_owned()
    });
    let code = child.wait().unwrap().code().unwrap_or(-1);
    (code, reader.join().unwrap())
}

fn nothing_shows_where_the_endpoint_is(name: &'static str) {
    let engine = Engine::lock(name);
    for (transport, mode) in
        [("registry", "plain"), ("registry", "tty"), ("registry", "rawjson"), ("registry", "quiet"), ("archive", "plain")]
    {
        let machine = Machine::with(&engine.host());
        let image = project(&machine);
        let files = ["--timeline", "../timeline.html", "--metadata-file", "../metadata.json", "--summary", "../summary.md"];
        let build = Build::cached(&machine).with(&files).transport(transport).progress(mode).push(&image);
        // Cold, an append, and a part that comes from the cache.
        for (file, text) in [("src.txt", "one\n"), ("src.txt", "two\n"), ("Dockerfile", "")] {
            let text = if text.is_empty() { machine.read(file) + "RUN cat /src.txt\n" } else { text.to_owned() };
            machine.write(file, &text);
            engine.wipe();
            let (code, stderr) = followed(&build);
            assert_eq!(code, 0, "{transport} {mode}: {stderr}");
            for file in ["../report.json", "../timeline.html", "../metadata.json", "../summary.md"] {
                assert_eq!(leaks(&machine.read(file)), [""; 0], "{transport} {mode} {file}");
            }
        }
    }
}

#[test]
fn nothing_shows_where_the_endpoint_is_on_docker_20() {
    nothing_shows_where_the_endpoint_is(D20);
}

#[test]
fn nothing_shows_where_the_endpoint_is_on_docker_28() {
    nothing_shows_where_the_endpoint_is(D28);
}

#[test]
fn nothing_shows_where_the_endpoint_is_on_the_containerd_store() {
    nothing_shows_where_the_endpoint_is(C28);
}

/// The build fails after the daemon pulled from the endpoint.
fn a_failure_does_not_show_where_the_endpoint_is(name: &'static str) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    let image = project(&machine);
    let build = Build::new(&machine).cache("../cache").push(&image);
    assert_eq!(followed(&build).0, 0);
    machine.write("Dockerfile", &(machine.read("Dockerfile") + "RUN false\n"));
    engine.wipe();
    assert_eq!(followed(&build).0, 1);
}

#[test]
fn a_failure_does_not_show_where_the_endpoint_is_on_docker_20() {
    a_failure_does_not_show_where_the_endpoint_is(D20);
}

#[test]
fn a_failure_does_not_show_where_the_endpoint_is_on_docker_28() {
    a_failure_does_not_show_where_the_endpoint_is(D28);
}

#[test]
fn a_failure_does_not_show_where_the_endpoint_is_on_the_containerd_store() {
    a_failure_does_not_show_where_the_endpoint_is(C28);
}

/// The ports of 127.0.0.1 that a process listens on.
fn ports(process: u32) -> Vec<u16> {
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{process}/fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.to_str()?.to_owned()))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let listening = rows.filter(|row| row.len() > 9 && row[3] == "0A" && sockets.iter().any(|socket| socket == row[9]));
    listening.filter_map(|row| u16::from_str_radix(row[1].strip_prefix("0100007F:")?, 16).ok()).collect()
}

#[test]
fn another_process_that_takes_all_connections_does_not_keep_the_daemon_out() {
    let engine = Engine::fresh(D28);
    let machine = Machine::with(&engine.host());
    let build = Build::new(&machine).cache("../cache").push(&project(&machine));
    let limited = ["-c", "ulimit -n 256; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_hakobi")];
    let mut child = machine.command("sh").args(limited).args(build.arguments()).stderr(Stdio::piped()).spawn().unwrap();
    let mut held = std::collections::VecDeque::new();
    while child.try_wait().unwrap().is_none() {
        for port in ports(child.id()) {
            for _ in 0..50 {
                held.extend(std::net::TcpStream::connect(("127.0.0.1", port)));
            }
        }
        while held.len() > 600 {
            held.pop_front();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(child.wait().unwrap().success(), "{told}");
    assert!(!held.is_empty());
}

fn own_names(engine: &Engine) -> Vec<String> {
    let names = engine.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    names.lines().filter(|name| name.contains("/hakobi-") || name.starts_with("hakobi.invalid/")).map(str::to_owned).collect()
}

fn folders(temporary: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(temporary).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn the_next_run_removes_what_a_killed_one_left() {
    let engine = Engine::fresh(D28);
    let temporary = tempfile::tempdir().unwrap();
    let machine = Machine::with(&engine.host()).set("TMPDIR", temporary.path().to_str().unwrap());
    let build = Build::new(&machine).push(&project(&machine));
    machine.write("Dockerfile", &machine.read("Dockerfile").replace("2000000", "60000000"));
    let mut child = build.start();
    let began = Instant::now();
    while own_names(&engine).is_empty() {
        assert!(child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(120));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!own_names(&engine).is_empty() && !folders(temporary.path()).is_empty());
    // A user's image with a name of the same kind, and a folder of someone else's.
    let users = "127.0.0.1:5000/hakobi-app/image:latest";
    engine.docker(&["tag", &own_names(&engine)[0], users]);
    std::fs::create_dir(temporary.path().join("hakobi-of-the-user")).unwrap();
    // It may be a run that begins: nothing goes yet.
    build.run().exits(0);
    assert!(folders(temporary.path()).len() > 1);
    for lock in folders(temporary.path()).iter().map(|folder| folder.join("lock")).filter(|lock| lock.exists()) {
        let lock = std::fs::File::options().write(true).open(lock).unwrap();
        lock.set_modified(SystemTime::now() - Duration::from_secs(600)).unwrap();
    }
    build.run().exits(0);
    let left = own_names(&engine);
    engine.docker(&["rmi", users]);
    assert_eq!(left, [users]);
    assert_eq!(folders(temporary.path()), [temporary.path().join("hakobi-of-the-user")]);
}

#[test]
fn an_interrupted_build_leaves_nothing_in_the_daemon() {
    for name in [D28, C28] {
        let engine = Engine::fresh(name);
        let temporary = tempfile::tempdir().unwrap();
        let machine = Machine::with(&engine.host()).set("TMPDIR", temporary.path().to_str().unwrap());
        let build = Build::new(&machine).with(&["--no-cache"]).push(&project(&machine));
        machine.write("Dockerfile", &machine.read("Dockerfile").replace("2000000", "60000000"));
        // Most of these moments are while the daemon stores and names the image, which it does not stop at once.
        for milliseconds in (400..1300).step_by(100).chain([1500, 3000, 4500]) {
            let mut child = build.start();
            std::thread::sleep(Duration::from_millis(milliseconds));
            let asked = Instant::now();
            let _ = std::process::Command::new("kill").arg(child.id().to_string()).status();
            child.wait().unwrap();
            assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
            assert!(own_names(&engine).is_empty(), "{name} {milliseconds}: {:?}", own_names(&engine));
            assert!(folders(temporary.path()).is_empty(), "{name} {milliseconds}: {:?}", folders(temporary.path()));
        }
        // Nor afterwards.
        std::thread::sleep(Duration::from_secs(1));
        assert!(own_names(&engine).is_empty(), "{name}: {:?}", own_names(&engine));
    }
}
