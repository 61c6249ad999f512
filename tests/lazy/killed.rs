//! Whatever is killed, and when: no image is wrong, and nothing stays on the machine.

use std::time::Duration;

use crate::project::{Project, app_of};
use crate::support::engine::{D28, Engine};
use crate::support::machine::Run;

/// How many moments of a build are tried, and how far apart they are.
const MOMENTS: u32 = 20;
const APART: Duration = Duration::from_millis(250);

fn kill(signal: &str, pid: &str) {
    Run::of(std::process::Command::new("kill").args([signal, pid]));
}

#[test]
fn a_killed_build_leaves_nothing_and_the_next_one_is_right() {
    let mut project = Project::new(D28);
    project.build().done();
    let mut disks = 0;
    for moment in 0..MOMENTS {
        project.set("b.c", &format!("b{moment}\n"));
        let before = project.disk();
        let mut running = project.build().start();
        std::thread::sleep(APART * moment);
        kill("-KILL", &running.id().to_string());
        running.wait().unwrap();
        assert_eq!(project.left_behind(), [""; 0], "after {:?}", APART * moment);
        disks += u32::from(project.disk() != before);
        if moment % 4 == 3 {
            project.set("c.c", &format!("c{moment}\n"));
            project.build().done();
            assert_eq!(app_of(project.image()), project.app(), "after {:?}", APART * moment);
        }
    }
    assert!(disks < MOMENTS, "some are killed before they have saved their disk");
}

#[test]
fn a_terminated_build_leaves_nothing() {
    let mut project = Project::new(D28);
    project.build().done();
    for moment in [2, 5, 9, 13] {
        project.set("b.c", &format!("b{moment}\n"));
        let mut running = project.build().start();
        std::thread::sleep(APART * moment);
        kill("-TERM", &running.id().to_string());
        running.wait().unwrap();
        assert_eq!(project.left_behind(), [""; 0], "after {:?}", APART * moment);
    }
}

/// The processes behind a daemon, by what their command lines have.
#[test]
fn a_build_survives_its_daemon() {
    let engine = Engine::lock(D28);
    for process in ["daemon-keeper", "disk-process", "dockerd --config-file"] {
        let mut project = Project::new(D28);
        project.build().done();
        project.set("b.c", "b2\n");
        project.waits = Some("here-it-waits");
        let build = project.build().on(&engine.host());
        let built = std::thread::scope(|scope| {
            let killer = scope.spawn(|| project.kill_when_it_waits(process));
            let built = build.done();
            killer.join().unwrap();
            built
        });
        assert!(built.log().contains("building again with the machine's"), "{process}: {built}");
        assert_eq!(app_of(project.image()), project.app(), "{process}: {built}");
        assert_eq!(project.left_behind(), [""; 0], "{process}");
    }
}
