//! A login of ECR that cannot be renewed during a build.

use std::time::Duration;

use crate::ecr_fake::{EcrFake, Event, HOST};
use crate::machine::Run;
use crate::scripted::plain::same_image;
use crate::world::{World, runtime};

/// An ECR that gives one login only.
fn world() -> (World, EcrFake) {
    let mut world = World::new("FROM BASE\nRUN sum /deps\nCOPY src /app/src\n");
    world.write("src/main", "one\n");
    let ecr = runtime().block_on(EcrFake::before(world.registry.host()));
    ecr.add("team/app", false);
    ecr.deny_logins_after(1);
    for (name, value) in ecr.environment() {
        world.machine.put(name, &value);
    }
    (world, ecr)
}

fn build(world: &World) -> Run {
    let tag = format!("{HOST}/team/app:1");
    world.machine.hakobi(&["build", "--progress", "plain", "-t", &tag, "--push", "--cache", "../cache", "."])
}

fn asked_for_logins(ecr: &EcrFake) -> usize {
    ecr.calls().iter().filter(|call| *call == "GetAuthorizationToken").count()
}

#[test]
fn a_login_that_cannot_be_renewed_is_used_while_it_works() {
    let (world, ecr) = world();
    // Half of the login's life is over after the pause, but not all of it.
    ecr.tokens_live(Duration::from_secs(3600), Duration::from_secs(16));
    ecr.at("POST", "/blobs/uploads/", Event::Pause(Duration::from_millis(8200)));
    let run = build(&world).exits(0);
    assert!(asked_for_logins(&ecr) > 1, "{:?}\n{}", ecr.calls(), run.stderr);
    assert_eq!(ecr.logins(), 1);
    same_image(&world.registry.image(&ecr.upstream_path("team/app"), "1"), &world.plain(), &run.stderr);
}

#[test]
fn a_login_that_expires_and_cannot_be_renewed_fails_the_push() {
    for (method, path) in [("POST", "/blobs/uploads/"), ("PUT", "/manifests/1")] {
        let (world, ecr) = world();
        ecr.at(method, path, Event::TokensExpire);
        let run = build(&world).exits(3);
        assert!(asked_for_logins(&ecr) > 1, "{:?}", ecr.calls());
        assert!(run.stderr.contains("AccessDeniedException"), "{method} {path}: {}", run.stderr);
        assert!(run.stderr.contains("ecr:GetAuthorizationToken"), "{method} {path}: {}", run.stderr);
        assert_eq!(world.registry.tagged(&ecr.upstream_path("team/app"), "1"), None, "{method} {path}");
    }
}
