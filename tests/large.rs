//! Measures the transfer of a large layer from S3, whose connections are slow, and of a large file. Prints the time and the memory.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod support;

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::build::Build;
use support::engine::{D28, Engine};
use support::image::{base, unique_image};
use support::machine::Machine;
use support::parts::unique;
use support::s3::{BUCKET, S3Server};

/// What one connection carries, in bytes a second: S3's carry 40 to 90 MB.
const RATE: u64 = 40 << 20;

/// The most memory that a process has had so far, in KiB.
fn peak(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Runs hakobi; gives its seconds and the most memory it had, in KiB.
fn measured(machine: &Machine, arguments: &[impl AsRef<OsStr>]) -> (f64, u64) {
    let began = Instant::now();
    let mut command = machine.command(std::env::var_os("HAKOBI").unwrap_or(env!("CARGO_BIN_EXE_hakobi").into()));
    let mut child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut most = 0;
    loop {
        most = peak(child.id()).unwrap_or(0).max(most);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return (began.elapsed().as_secs_f64(), most);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "long: a layer of 1 GB"]
fn long_a_large_layer_comes_in_parts_and_little_memory() {
    let server = S3Server::limited(Some(RATE));
    let engine = Engine::fresh(D28);
    let machine = server.variables().iter().fold(Machine::with(&engine.host()), |machine, (key, value)| machine.set(key, value));
    machine.write("Dockerfile", &format!("FROM {}\nRUN head -c 1000000000 /dev/urandom > /large\n", base("busybox")));
    let (image, cache) = (unique("large"), format!("s3://{BUCKET}/large"));
    let store = ["--cache", &cache, "--cache-scope", "main"];

    let build = Build::new(&machine).strategy("daemon").tag(&image).with(&store);
    let (seconds, memory) = measured(&machine, &build.arguments());
    println!("build and save: {seconds:.1} s, {} MiB at most", memory >> 10);
    assert!(memory < 150 << 10, "{memory} KiB");

    // One stream, as `aws s3 cp - ` and any plain client reads.
    let blobs = server.objects().join("large/blobs/sha256");
    let layer = std::fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap());
    let layer = layer.max_by_key(|entry| entry.metadata().unwrap().len()).unwrap();
    let key = format!("large/blobs/sha256/{}", layer.file_name().to_str().unwrap());
    let single = tokio::runtime::Runtime::new().unwrap().block_on(single_stream(&server, &key));
    println!("one GET: {single:.1} s");

    let other = |arguments: &[&str]| [arguments, &store].concat().into_iter().map(str::to_owned).collect();
    let runs: [(&str, Vec<String>); 5] = [
        ("export", other(&["export", &image, "-o", "/dev/null"])),
        ("restore by the registry", other(&["restore", &image, "--transport", "registry"])),
        ("restore by an archive", other(&["restore", &image, "--transport", "archive"])),
        ("build by the registry", build.clone().transport("registry").arguments()),
        ("build by the session", build.transport("archive").arguments()),
    ];
    for (what, arguments) in runs {
        engine.wipe();
        let (seconds, memory) = measured(&machine, &arguments);
        println!("{what}: {seconds:.1} s, {:.2} of one GET's, {} MiB at most", seconds / single, memory >> 10);
        assert!(memory < 150 << 10, "{what}: {memory} KiB");
    }
}

#[test]
#[ignore = "long: a file of 2 GB"]
fn long_a_large_file_is_laid_down_in_little_memory() {
    let engine = Engine::fresh(D28);
    let machine = Machine::with(&engine.host());
    let dockerfile = format!("FROM {}\nRUN echo deps > /deps\nCOPY large /srv/\n", base("busybox"));
    machine.write("Dockerfile", &dockerfile).write("large", "small yet\n");
    let image = unique_image("large");
    let build = Build::cached(&machine).push(&image).arguments();
    measured(&machine, &build);
    let mut large = std::io::BufWriter::new(std::fs::File::create(machine.folder().join("large")).unwrap());
    let block: Vec<u8> = (0..1 << 20).map(|_| rand::random()).collect();
    for _ in 0..2048 {
        large.write_all(&block).unwrap();
    }
    large.into_inner().unwrap();
    engine.wipe();
    let (seconds, memory) = measured(&machine, &build);
    println!("a file of 2 GB laid down and pushed: {seconds:.1} s, {} MiB at most", memory >> 10);
    let report = machine.report("../report.json");
    assert_eq!((&report["tier"], &report["layers"]["restored"]), (&"append".into(), &0.into()), "{report:#}");
    assert!(memory < 150 << 10, "{memory} KiB");
    let there = engine.docker(&["run", "--rm", "--network", "host", &image, "sha256sum", "/srv/large"]);
    let here = std::process::Command::new("sha256sum").arg(machine.folder().join("large")).output().unwrap().stdout;
    assert_eq!(there.split(' ').next(), String::from_utf8_lossy(&here).split(' ').next());
}

async fn single_stream(server: &S3Server, key: &str) -> f64 {
    hakobi::registry::install_crypto();
    let credentials =
        aws_credential_types::Credentials::new(support::s3::ACCESS_KEY, support::s3::SECRET_KEY, None, None, "test");
    let config = aws_sdk_s3::config::Builder::new()
        .behavior_version_latest()
        .region(aws_config::Region::new("eu-west-1"))
        .endpoint_url(server.endpoint())
        .force_path_style(true)
        .credentials_provider(credentials)
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    let client = aws_sdk_s3::Client::from_conf(config.build());
    let began = Instant::now();
    let mut answer = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
    let mut bytes = 0;
    while let Some(part) = answer.body.next().await {
        bytes += part.unwrap().len();
    }
    assert!(bytes > 900_000_000);
    began.elapsed().as_secs_f64()
}
