//! Whatever is killed, and when: no image is wrong, and nothing stays on the machine.

use std::time::Duration;

use crate::project::{Project, app_of};
use crate::support::engine::{C28, D28, Engine};
use crate::support::machine::Run;

fn kill(signal: &str, pid: &str) {
    Run::of(std::process::Command::new("kill").args([signal, pid]));
}

/// Kills builds at this many moments, which are so far apart.
fn kill_at(moments: u32, apart: Duration) {
    let mut project = Project::new(D28);
    project.build().done();
    let mut disks = 0;
    for moment in 0..moments {
        project.set("b.c", &format!("b{moment}\n"));
        let before = project.disk();
        let mut running = project.build().start();
        std::thread::sleep(apart * moment);
        kill("-KILL", &running.id().to_string());
        running.wait().unwrap();
        assert_eq!(project.left_behind(), [""; 0], "after {:?}", apart * moment);
        disks += u32::from(project.disk() != before);
        // The tool compares whole seconds.
        std::thread::sleep(Duration::from_millis(1100));
        if moment % 4 == 3 {
            project.set("c.c", &format!("c{moment}\n"));
            project.build().done();
            assert_eq!(app_of(project.image()), project.app(), "after {:?}", apart * moment);
        }
    }
    assert!(disks < moments, "some are killed before they have saved their disk");
}

#[test]
fn a_killed_build_leaves_nothing_and_the_next_one_is_right() {
    kill_at(12, Duration::from_millis(400));
}

#[test]
#[ignore = "long"]
fn long_kills_at_sixty_moments() {
    kill_at(60, Duration::from_millis(80));
}

#[test]
fn a_terminated_build_leaves_nothing() {
    let mut project = Project::new(D28);
    project.build().done();
    for moment in [500, 1200, 2200, 3200].map(Duration::from_millis) {
        project.set("b.c", &format!("{moment:?}\n"));
        let mut running = project.build().start();
        std::thread::sleep(moment);
        kill("-TERM", &running.id().to_string());
        running.wait().unwrap();
        assert_eq!(project.left_behind(), [""; 0], "after {moment:?}");
    }
}

/// The processes behind a daemon, by what their command lines have.
#[test]
fn a_build_survives_its_daemon() {
    let engine = Engine::lock(C28);
    for process in ["daemon-keeper", "disk-process", "dockerd --config-file"] {
        let mut project = Project::new(C28);
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
