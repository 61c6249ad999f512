//! Machines on which Docker is installed, and on which no daemon of it runs.

use std::path::PathBuf;
use std::process::Command;

use super::engine::{C28, D20};
use super::machine::Machine;
use super::parts::part;

/// Returns a machine with the Docker of this kind of engine ([`super::engine::ENGINES`]). Its daemon.json is that of a daemon with the
/// same image store, and without a network of its own.
pub fn machine_with_docker(kind: &str) -> Machine {
    let tree = if kind == D20 { "bookworm" } else { "sid" };
    let root = PathBuf::from(part("HAKOBI_TEST_ROOTS")).join(tree);
    let path = format!("{}:{}", part("HAKOBI_TEST_INSTALLED"), std::env::var("PATH").unwrap());
    let machine = Machine::with("unix:///nowhere/docker.sock");
    let machine = machine.set("PATH", &path).set("HAKOBI_TEST_ROOT", root.to_str().unwrap());
    let features = if kind == C28 { r#","features":{"containerd-snapshotter":true}"# } else { "" };
    let configuration = machine.home().join("daemon.json");
    std::fs::write(&configuration, format!(r#"{{"bridge":"none","cgroup-parent":"/hakobi-installed"{features}}}"#)).unwrap();
    machine.set("HAKOBI_DAEMON_CONFIG", configuration.to_str().unwrap())
}

/// Returns what is left of daemons that ran for this machine: processes, mounts and loop devices that have its temporary directory in
/// their names. `TMPDIR` has to be in the machine's home.
pub fn left_behind(machine: &Machine) -> Vec<String> {
    let home = machine.home().to_str().unwrap();
    let mut left = Vec::new();
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let loops = output("losetup", &["--list", "--noheadings", "--output", "NAME,BACK-FILE"]);
    let name = home.trim_start_matches('/').replace('/', "-");
    left.extend(loops.lines().filter(|line| line.contains(&name)).map(str::to_owned));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    left.extend(mounts.lines().filter(|line| line.contains(home)).map(str::to_owned));
    for process in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        let is_its_own = String::from_utf8_lossy(&environment).contains(home);
        let is_process = ["disk-process", "daemon-keeper", "dockerd", "containerd"].iter().any(|name| command.contains(name));
        if command.contains(home) || is_its_own && is_process {
            left.push(command);
        }
    }
    left
}
