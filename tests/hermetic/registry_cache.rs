//! The cache in a registry: beside the image (`--cache-from IMAGE`), or in a repository of its own (`--cache oci://…`).

use crate::scripted::daemon::StoreKind;
use crate::scripted::plain::same_image;
use crate::scripted::registry::RegistryFault;
use crate::world::{Built, Place, World};

const FILES_LAST: &str = "FROM BASE\nRUN sum /deps\nCOPY src /app/src\nCMD [\"run\"]\n";
const COMMAND: &str = "FROM BASE\nRUN sum /deps\nCOPY src /app/src\nRUN sum /built\n";
const STAGES: &str =
    "FROM BASE AS build\nCOPY src /src\nRUN compile /src /out/app\nFROM BASE\nRUN sum /deps\nCOPY --from=build /out /app/\n";

const PLACES: [Place; 2] = [Place::Beside, Place::Repository];

fn world(place: Place, dockerfile: &str) -> World {
    let world = World::new(dockerfile).with_cache(place);
    world.write("src/main", "one\n").write("src/deep/er", "deep\n");
    world
}

/// A file whose layer is larger than what stands among the records.
fn large() -> String {
    (0..40_000_u64).map(|number| format!("{:x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect()
}

/// The tags of the cache's artifacts.
fn artifacts(world: &World, repository: &str) -> Vec<String> {
    world.registry.tags(repository).into_iter().filter(|tag| tag.starts_with("hakobi-cache-")).collect()
}

fn no_warnings(built: &Built) {
    assert_eq!(built.warnings(), [""; 0], "{}", built.stderr);
}

#[test]
fn every_tier_is_reached() {
    for place in PLACES {
        for store in [StoreKind::Containerd, StoreKind::GraphDriver] {
            let world = World::on(store, FILES_LAST).with_cache(place);
            world.write("src/main", "one\n");
            let cold = world.build(&[]);
            assert_eq!(cold.tier(), "cold", "{place:?}: {:#}", cold.report);
            let unchanged = world.wiped().build(&[]);
            assert_eq!((unchanged.tier(), unchanged.ran.len()), ("unchanged", 0), "{place:?}: {}", unchanged.stderr);
            world.write("src/main", "two\n");
            let appended = world.wiped().build(&[]);
            assert_eq!((appended.tier(), appended.ran.len()), ("append", 0), "{place:?}: {}", appended.stderr);
            assert_eq!(appended.report["layers"]["pushed"], 1, "{place:?}: {:#}", appended.report);
            let world = world.dockerfile(&FILES_LAST.replace("CMD", "RUN sum /more\nCMD"));
            let partial = world.wiped().build(&[]);
            assert_eq!(
                (partial.tier(), &partial.ran[..]),
                ("partial", &["[4/4] RUN sum /more".to_owned()][..]),
                "{}",
                partial.stderr
            );
            for built in [cold, unchanged, appended, partial] {
                no_warnings(&built);
            }
        }
    }
}

#[test]
fn stages_are_saved_too() {
    for place in PLACES {
        let world = world(place, STAGES);
        no_warnings(&world.build(&[]));
        let world = world.dockerfile(&STAGES.replace("/deps", "/other"));
        let built = world.wiped().build(&[]);
        assert_eq!(built.ran.iter().filter(|step| step.contains("compile")).count(), 0, "{place:?}: {:?}", built.ran);
    }
}

/// The figures of docs/costs.md.
#[test]
fn a_run_costs_few_requests() {
    let world = world(Place::Beside, FILES_LAST);
    world.build(&[]);
    world.registry.requests();
    world.wiped().build(&[]);
    let unchanged = world.registry.requests();
    let to_app = |requests: &[String]| requests.iter().filter(|request| request.contains("/v2/app/")).count();
    // Whether it may push (2), the records (2), the configuration (2), 3 layers, the tag.
    assert_eq!(to_app(&unchanged), 10, "{unchanged:#?}");
    assert!(!unchanged.iter().any(|request| request.starts_with("PATCH")), "nothing is uploaded: {unchanged:#?}");
    world.write("src/main", "two\n");
    world.wiped().build(&[]);
    let appended = world.registry.requests();
    // The layer, the configuration, and the records.
    let uploads = appended.iter().filter(|request| request.starts_with("PATCH /v2/app/")).count();
    assert_eq!(uploads, 3, "{appended:#?}");
}

#[test]
fn layers_go_to_the_registry_once() {
    for place in PLACES {
        let world = world(place, COMMAND);
        world.write("src/large", &large());
        let built = world.build(&[]);
        let requests = world.registry.requests();
        let cache_uploads = requests.iter().filter(|request| request.starts_with("PATCH /v2/cache/")).count();
        // The records and their configuration; the layers are mounted.
        assert_eq!(cache_uploads, if place == Place::Repository { 2 } else { 0 }, "{requests:#?}");
        assert!(built.report["bytes"]["saved"].as_u64().is_some_and(|bytes| bytes < 10_000), "{:#}", built.report);
    }
}

#[test]
fn a_build_that_does_not_move_the_tag_only_reads() {
    let world = world(Place::Beside, FILES_LAST);
    world.build(&[]);
    let saved: Vec<_> = artifacts(&world, "app").iter().map(|tag| world.registry.tagged("app", tag)).collect();
    world.write("src/main", "two\n");
    let branch = format!("{}/app:branch", world.registry.host());
    let latest = format!("{}/app:1", world.registry.host());
    let arguments = ["build", "--push", "--report", "../report.json", "-t", &branch, "--cache-from", &latest, "."];
    world.wiped().machine.hakobi(&arguments).exits(0);
    assert_eq!(world.machine.report("../report.json")["tier"], "append");
    same_image(&world.registry.image("app", "branch"), &world.plain(), "branch");
    let after: Vec<_> = artifacts(&world, "app").iter().map(|tag| world.registry.tagged("app", tag)).collect();
    assert_eq!(saved, after);
}

/// One run's records must not take another's place, and old ones must not pile up.
#[test]
fn there_is_one_artifact_for_each_scope_and_image() {
    let world = world(Place::Repository, FILES_LAST);
    for turn in 0..4 {
        world.write("src/main", &format!("{turn}\n"));
        world.build(&["--cache-scope", "main"]);
        world.build(&["--cache-scope", "feature/x", "--cache-fallback", "main"]);
    }
    let tags = artifacts(&world, "cache");
    assert_eq!(tags.len(), 2, "{tags:?}");
    assert!(tags.iter().any(|tag| tag.starts_with("hakobi-cache-main-")), "{tags:?}");
    assert!(tags.iter().any(|tag| tag.starts_with("hakobi-cache-feature-2fx-")), "{tags:?}");
}

/// The artifact names the layers: what only the cache still needs survives.
#[test]
fn a_garbage_collection_takes_nothing_away() {
    for place in PLACES {
        let world = world(place, STAGES);
        world.build(&[]);
        world.registry.collect_garbage("app");
        world.registry.collect_garbage("cache");
        let unchanged = world.wiped().build(&[]);
        assert_eq!(unchanged.tier(), "unchanged", "{place:?}: {}", unchanged.stderr);
        let world = world.dockerfile(&STAGES.replace("/deps", "/other"));
        let built = world.wiped().build(&[]);
        assert_eq!(built.ran.iter().filter(|step| step.contains("compile")).count(), 0, "{place:?}: {:?}", built.ran);
        no_warnings(&built);
    }
}

#[test]
fn a_lifecycle_rule_costs_time_and_nothing_else() {
    for place in PLACES {
        let repository = if place == Place::Beside { "app" } else { "cache" };
        let world = world(place, COMMAND);
        world.build(&[]);
        world.registry.forget_tags(repository, "hakobi-cache-");
        world.registry.collect_garbage(repository);
        let after = world.wiped().build(&[]);
        no_warnings(&after);
        world.wiped();
        assert_eq!(world.build(&[]).tier(), "unchanged", "{place:?}");
        // Everything is gone, also the image.
        world.registry.forget("app");
        world.registry.forget("cache");
        assert_eq!(world.wiped().build(&[]).tier(), "cold", "{place:?}");
        assert_eq!(world.wiped().build(&[]).tier(), "unchanged", "{place:?}");
    }
}

#[test]
fn a_registry_that_lost_blobs_is_no_wrong_image() {
    for place in PLACES {
        let repository = if place == Place::Beside { "app" } else { "cache" };
        for turn in 0..4 {
            let world = world(place, COMMAND);
            world.build(&[]);
            world.write("src/main", "two\n");
            if !world.registry.lose_blob(repository, turn) {
                continue;
            }
            // Those that the image needs come from the cache, and the other way round.
            world.registry.forget_tags("app", "1");
            let built = world.wiped().build(&[]);
            assert!(built.warnings().len() <= 1, "{place:?}, {turn}: {:?}", built.warnings());
            world.wiped().build(&[]);
        }
    }
}

/// Each request of a whole build fails once, in each way: the image is right, or the build says that the registry failed.
#[test]
fn every_request_of_a_build_may_fail_once() {
    let faults = [RegistryFault::Status(429), RegistryFault::Cut];
    for method in ["GET", "HEAD", "PUT", "POST", "PATCH"] {
        for fault in faults {
            for skip in 0..2 {
                let world = world(Place::Repository, FILES_LAST);
                world.build(&[]);
                world.write("src/main", "two\n");
                world.wiped();
                world.registry.fails(method, "/v2/cache/", skip, 1, fault);
                let built = world.build(&[]);
                no_warnings(&built);
                world.registry.mend();
                assert_eq!(world.wiped().build(&[]).tier(), "unchanged", "{method}, {skip}, {fault:?}");
            }
        }
    }
}

#[test]
fn a_registry_that_never_takes_the_records_is_a_warning() {
    for place in PLACES {
        for (method, status) in [("PUT", 403), ("POST", 403), ("PUT", 400)] {
            if place == Place::Beside && method == "POST" {
                continue;
            }
            let world = world(place, FILES_LAST);
            let path = if place == Place::Beside { "/v2/app/manifests/hakobi-cache-" } else { "/v2/cache/" };
            world.registry.fails(method, path, 0, usize::MAX, RegistryFault::Status(status));
            let built = world.build(&[]);
            assert_eq!(built.warnings().len(), 1, "{place:?}, {method}: {:?}", built.warnings());
            world.wiped().try_build(&["--cache-required"]).exits(4);
            same_image(&world.image(), &world.plain(), "it is pushed all the same");
        }
    }
}

#[test]
fn a_registry_that_denies_reading_what_does_not_exist_is_a_first_build() {
    let world = world(Place::Beside, FILES_LAST);
    // As GHCR does for a package that no push has made yet.
    world.registry.fails("GET", "/v2/app/manifests/", 0, 6, RegistryFault::Status(403));
    let built = world.try_build(&[]).exits(0);
    assert!(!built.stderr.contains("continuing without the cache oci"), "{}", built.stderr);
    world.registry.mend();
    assert_eq!(world.wiped().build(&[]).tier(), "unchanged");
}

#[test]
fn the_cache_is_listed_and_verified() {
    let world = world(Place::Repository, FILES_LAST);
    world.write("src/large", &large());
    world.build(&[]);
    let cache = format!("oci://{}/cache", world.registry.host());
    let command = |more: &[&str]| world.machine.hakobi(&[&["cache"], more, &["--cache", &cache]].concat());
    let listed = command(&["ls"]).exits(0).stdout;
    assert!(listed.contains("app:latest"), "{listed}");
    let stat = command(&["stat"]).exits(0).stdout;
    assert!(stat.starts_with("1 images in 1 scopes"), "{stat}");
    let verified = command(&["verify"]).exits(0).stdout;
    assert!(verified.contains("0 damaged; 1 of 1 images complete"), "{verified}");
    let layers = world.registry.layers("app", "1");
    assert!(layers.iter().any(|layer| world.registry.lose_blob_of("cache", layer)), "the large layer is a blob");
    assert!(command(&["verify"]).exits(4).stdout.contains("0 of 1 images complete"));
    let none = world.machine.hakobi(&["cache", "ls", "--cache", &format!("oci://{}/other", world.registry.host())]);
    assert!(none.exits(4).stderr.contains("no cache at oci://"));
}

/// A build is killed while it waits for the answer to each request of a save in turn.
#[test]
fn a_build_that_is_killed_while_it_saves_leaves_a_right_cache() {
    for place in PLACES {
        let path = if place == Place::Beside { "/v2/app/" } else { "/v2/cache/" };
        for method in ["POST", "PATCH", "PUT", "HEAD", "GET", "DELETE"] {
            for skip in 0..3 {
                let world = world(place, COMMAND);
                world.build(&[]);
                world.write("src/main", "two\n");
                world.wiped();
                world.registry.fails(method, path, skip, 1, RegistryFault::Stall);
                let (status, sent) = world.stopped_build("KILL", |sent| sent == 0 && world.registry.is_stalled());
                world.registry.mend();
                let what = format!("{place:?}, {method}, {skip}");
                let built = world.wiped().build(&[]);
                assert_eq!(built.warnings(), [""; 0], "{what}");
                assert_eq!(world.wiped().build(&[]).tier(), "unchanged", "{what}");
                if sent == 0 {
                    assert!(status.success(), "{what}: {status}");
                    break;
                }
            }
        }
    }
}
