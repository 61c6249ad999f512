//! Tests the events that make hakobi plan again during a build: the image is right each time.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::scripted::faults::{Fault, Point};
use crate::scripted::registry::RegistryFault;
use crate::world::World;

const COMMAND_LAST: &str = "FROM BASE\nRUN sum /deps\nCOPY src /app/src\nRUN sum /built\n";

const COMPILED: &str =
    "FROM BASE AS build\nCOPY src /src\nRUN compile /src /out/app\nFROM BASE\nCOPY --from=build /out /app/\nRUN sum /built\n";

fn built(dockerfile: &str) -> World {
    let world = World::new(dockerfile);
    world.write("src/main", "one\n");
    world.build(&[]);
    world
}

/// Returns the cached blob of a layer of the image. The base's layers come first.
fn cached_layer(world: &World, place: usize) -> std::path::PathBuf {
    world.cached(&world.registry.layers("app", "1")[place])
}

fn damage(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn what_a_stage_makes_is_the_same_although_its_source_is_another() {
    let world = built(COMPILED);
    world.write("src/main", "# a comment\none\n");
    let observed = world.wiped().build(&[]);
    assert_eq!(observed.ran, ["[build 2/3] COPY src /src", "[build 3/3] RUN compile /src /out/app"], "{}", observed.stderr);
    assert_eq!(observed.steps("miss"), ["COPY src /src", "RUN compile /src /out/app"], "{:#}", observed.report);
    assert_eq!(world.wiped().build(&[]).tier(), "unchanged");
}

#[test]
fn what_a_stage_makes_is_another() {
    let world = built(COMPILED);
    world.write("src/main", "two\n");
    let observed = world.wiped().build(&[]);
    assert_eq!(observed.ran.len(), 4, "{:?}", observed.ran);
}

#[test]
fn a_layer_that_the_cache_lost_is_made_again() {
    let world = built(COMMAND_LAST);
    fs::remove_file(cached_layer(&world, 1)).unwrap();
    world.write("src/main", "two\n");
    let colder = world.wiped().build(&[]);
    assert_eq!(colder.ran.len(), 3, "{:?}", colder.ran);
    assert!(colder.stderr.contains("cached layers are missing"), "{}", colder.stderr);
    world.write("src/main", "three\n");
    assert_eq!(world.wiped().build(&[]).ran.len(), 2, "it is there again");
}

/// The registry has none of the layers, so the cache must supply them.
#[test]
fn a_lost_layer_of_a_finished_image_costs_its_own_step() {
    for required in [&[][..], &["--cache-required"]] {
        let world = built(COMMAND_LAST);
        fs::remove_file(cached_layer(&world, 3)).unwrap();
        world.registry.forget("app");
        let built = world.wiped().build(required);
        assert_eq!(built.ran, ["[4/4] RUN sum /built"], "{}", built.stderr);
        assert_eq!(built.warnings(), [""; 0]);
        assert_eq!(built.stderr.matches("cached layers are missing").count(), 1, "{}", built.stderr);
        assert_eq!(world.wiped().build(required).tier(), "unchanged", "it is there again");
    }
}

#[test]
fn a_lost_layer_below_an_append_costs_its_own_step() {
    for required in [&[][..], &["--cache-required"]] {
        let world = built("FROM BASE\nRUN sum /deps\nRUN sum /more\nCOPY src /app/src\n");
        fs::remove_file(cached_layer(&world, 2)).unwrap();
        world.registry.forget("app");
        world.write("src/main", "two\n");
        let built = world.wiped().build(required);
        assert!(built.ran.contains(&"[3/4] RUN sum /more".to_owned()), "{:?}", built.ran);
        assert!(!built.ran.contains(&"[2/4] RUN sum /deps".to_owned()), "{:?}", built.ran);
        assert_eq!(built.warnings(), [""; 0]);
        assert_eq!(built.stderr.matches("cached layers are missing").count(), 1, "{}", built.stderr);
        assert_eq!(world.wiped().build(required).tier(), "unchanged", "it is there again");
    }
}

#[test]
fn a_damaged_layer_is_never_built_on() {
    let world = built(COMMAND_LAST);
    damage(&cached_layer(&world, 1));
    world.write("src/main", "two\n");
    let colder = world.wiped().build(&[]);
    assert_eq!(colder.ran.len(), 3, "{:?}", colder.ran);
    assert_eq!(colder.warnings().len(), 1, "{:?}", colder.warnings());
    assert!(colder.warnings()[0].contains("damaged"), "{:?}", colder.warnings());
    world.write("src/main", "three\n");
    assert_eq!(world.wiped().build(&[]).warnings(), [""; 0]);
}

#[test]
fn a_daemon_that_never_ends_what_it_says_of_a_build_is_not_waited_for() {
    let world = built(COMMAND_LAST);
    damage(&cached_layer(&world, 1));
    world.write("src/main", "two\n");
    world.wiped().daemon.solver.faults.add(Point::End, "image", 0, 1, Fault::Refused(tonic::Code::Internal, ""));
    let began = std::time::Instant::now();
    let colder = world.build(&[]);
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(colder.ran.len(), 3, "{:?}", colder.ran);
}

#[test]
fn a_layer_that_goes_while_the_build_runs_is_made_again() {
    let world = built(COMMAND_LAST);
    let layer = cached_layer(&world, 1);
    world.write("src/main", "two\n");
    let removes = Arc::new(move || drop(fs::remove_file(&layer)));
    world.wiped().daemon.solver.faults.add(Point::Solve, "sum /built", 0, 1, Fault::Meanwhile(removes));
    let colder = world.build(&[]);
    assert_eq!(colder.ran.iter().filter(|step| step.contains("/deps")).count(), 1, "{:?}", colder.ran);
    assert_eq!(colder.warnings().len(), 1, "{:?}", colder.warnings());
}

#[test]
fn a_source_that_moves_before_it_is_sent_is_planned_again() {
    let world = built(COMMAND_LAST);
    world.write("src/main", "two\n");
    let source = world.machine.folder().join("src/main");
    let moves = Arc::new(move || fs::write(&source, "three\n").unwrap());
    world.wiped().daemon.solver.faults.add(Point::Step, "load build context", 0, 1, Fault::Meanwhile(moves));
    let moved = world.build(&[]);
    assert!(moved.stderr.contains("the build context changed while hakobi read it"), "{}", moved.stderr);
    let again = world.wiped().build(&[]);
    assert_eq!(again.tier(), "unchanged", "it is remembered by what it was made of: {}", again.stderr);
}

#[test]
fn a_source_that_never_stands_still_is_built_as_it_is_sent() {
    let world = built(COMMAND_LAST);
    world.write("src/main", "two\n");
    let source = world.machine.folder().join("src/main");
    let count = std::sync::atomic::AtomicUsize::new(0);
    let moves = Arc::new(move || {
        let count = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        fs::write(&source, "x".repeat(count + 5)).unwrap();
    });
    world.wiped().daemon.solver.faults.add(Point::Step, "load build context", 0, 10, Fault::Meanwhile(moves));
    let moving = world.build(&[]);
    assert!(moving.stderr.contains("building from the files as hakobi sends them"), "{}", moving.stderr);
    world.daemon.solver.faults.mend();
    world.write("src/main", "still\n");
    assert_eq!(world.wiped().build(&[]).ran.len(), 2, "nothing of it is remembered");
}

#[test]
fn a_base_layer_that_does_not_come_through_hakobi_is_pulled_by_the_daemon() {
    let world = World::new(COMMAND_LAST);
    world.write("src/main", "one\n");
    let layer = world.registry.layers("base", "latest").remove(0);
    world.registry.fails("GET", &layer, 0, 1, RegistryFault::Damaged);
    let bypassed = world.build(&[]);
    assert!(bypassed.stderr.contains("the daemon pulls base images itself"), "{}", bypassed.stderr);
    world.write("src/main", "two\n");
    assert_eq!(world.wiped().build(&[]).ran.len(), 2);
}

#[test]
fn records_that_are_no_records_are_misses() {
    let world = built(COMMAND_LAST);
    let all = crate::world::all_files(&world.cache());
    let records =
        all.iter().filter(|path| path.to_string_lossy().contains("/steps/") || path.to_string_lossy().contains("/records/"));
    let records: Vec<_> = records.collect();
    assert!(!records.is_empty(), "{all:#?}");
    records.iter().for_each(|path| fs::write(path, "{").unwrap());
    let colder = world.wiped().build(&[]);
    assert_eq!(colder.ran.len(), 3, "{:?}", colder.ran);
    assert_eq!(world.wiped().build(&[]).tier(), "unchanged");
}
