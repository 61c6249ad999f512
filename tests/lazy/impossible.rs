//! Machines and builds that cannot have a daemon of hakobi's own: the machine's builds, and one line says why.

use crate::project::{Project, app_of};
use crate::support::engine::{C28, D20, D28, Engine};
use crate::support::image::{base, unique_image};
use crate::support::machine::Run;

/// Makes /dev anew with these devices, in a mount namespace.
const DEVICES: &str = "set -e; mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9; \
    [ $1 = none ] || mknod /dev/fuse c 10 229; shift; exec \"$@\"";

fn says_why(project: &Project, run: Run, why: &str) {
    let run = run.exits(0);
    let lines: Vec<&str> = run.stderr.lines().filter(|line| line.contains("--daemon lazy is not possible")).collect();
    assert_eq!(lines.len(), 1, "{}", run.stderr);
    assert!(lines[0].contains(why), "{}", lines[0]);
    assert_eq!(app_of(project.image()), project.app());
}

#[test]
fn a_machine_without_devices_or_docker_says_what_is_missing() {
    let engine = Engine::lock(D20);
    for (devices, why) in [("none", "/dev/fuse: it does not exist"), ("fuse", "/dev/loop-control: it does not exist")] {
        let project = Project::new(D20);
        let build = project.build().on(&engine.host());
        let command = build.command();
        let mut inside = project.machine().command("unshare");
        inside.args(["--mount", "sh", "-c", DEVICES, "sh", devices]).arg(command.get_program()).args(command.get_args());
        inside.env("DOCKER_HOST", engine.host());
        says_why(&project, Run::of(&mut inside), why);
    }
    let project = Project::new(D20);
    let path = project.machine().home().join("bin");
    let mut command = project.build().on(&engine.host()).command();
    command.env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", path.display()));
    says_why(&project, Run::of(&mut command), "dockerd is missing");
}

#[test]
fn another_user_and_an_unprivileged_container_are_told() {
    let project = Project::new(D28);
    let command = project.build().command();
    // Such a user reaches neither the daemon nor this directory: the line is all that counts.
    let mut other = project.machine().command("setpriv");
    other.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(command.get_program()).args(command.get_args());
    let run = Run::of(&mut other);
    assert!(run.code != 0, "{run:?}");
    let project = Project::new(D28);
    let command = project.build().command();
    let mut inside = project.machine().command("setpriv");
    inside.args(["--bounding-set", "-all", "--inh-caps", "-all"]).arg(command.get_program()).args(command.get_args());
    let run = Run::of(&mut inside).exits(5);
    assert!(run.stderr.contains("--daemon lazy is not possible"), "{}", run.stderr);
    assert_eq!(project.left_behind(), [""; 0]);
}

#[test]
fn builds_that_need_the_machines_daemon_use_it() {
    let engine = Engine::lock(C28);
    let project = Project::new(C28);
    let loaded = project.build().on(&engine.host()).with(&["--load"]).run();
    says_why(&project, loaded, "in the machine's daemon");
    let repository = unique_image("lazy-cache");
    let (repository, _) = repository.rsplit_once(':').unwrap_or((&repository, ""));
    let cached = project.build().on(&engine.host()).cache(&format!("oci://{repository}")).run();
    says_why(&project, cached, "a registry cannot have its disk");
    let off = project.build().on(&engine.host()).with(&["--cache-mode", "off"]).run();
    says_why(&project, off, "it requires a plan");
    assert!(!base("busybox").is_empty());
}
