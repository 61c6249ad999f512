//! The soak (`make soak`): eight jobs build on one cache, with random edits, faults, kills and prunes, and each image is compared with
//! the files that it was made of.
//!
//! `HAKOBI_SOAK_BUILDS` sets the number of builds (200), `HAKOBI_SOAK_SEED` the seed.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "soak/project.rs"]
mod project;
mod support;
#[path = "soak/watch.rs"]
mod watch;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use project::State;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use support::engine::{ENGINES, Engine};
use support::fault_proxy::{Asked, Fault, FaultProxy};
use support::machine::Machine;
use support::parts::{part, unique};
use support::s3::{BUCKET, S3Server};
use watch::{End, Seen, watched};

const JOBS: usize = 8;

/// After this many builds of each job, all engines are empty again.
const ROUND: usize = 5;

/// How large the cache may be after a prune, in bytes.
const MOST: u64 = 8_000_000;

/// A known fault of Docker 28.5 with the containerd store, which plain builds have too.
const OF_THE_ENGINE: [&str; 2] = ["parent snapshot", "does not exist: not found"];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// What all jobs share.
struct Soak {
    engines: Vec<Engine>,
    cache: String,
    variables: Vec<(&'static str, String)>,
    /// The registry behind its faults.
    registry: FaultProxy,
    repository: String,
    /// All states that a job has built, the latest last.
    history: Mutex<Vec<State>>,
    seen: Mutex<Vec<Seen>>,
    wrong: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Soak {
    fn new(cache: String, variables: Vec<(&'static str, String)>) -> Self {
        let engines: Vec<_> = ENGINES.into_iter().map(Engine::fresh).collect();
        let registry = FaultProxy::start(&part("HAKOBI_TEST_REGISTRY_OPEN"));
        Self {
            engines,
            cache,
            variables,
            registry,
            repository: unique("soak"),
            history: Mutex::new(vec![State::first()]),
            seen: Mutex::default(),
            wrong: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    fn machine(&self, job: usize) -> Machine {
        let host = self.engines[job % self.engines.len()].host();
        self.variables.iter().fold(Machine::with(&host), |machine, (name, value)| machine.set(name, value))
    }

    /// The state to build: mostly a new one, sometimes the latest or an earlier one.
    fn next(&self, random: &mut StdRng) -> State {
        let mut history = self.history.lock().unwrap();
        let mut state = history.last().unwrap().clone();
        match random.random_range(0..10) {
            0..=5 => {
                for _ in 0..random.random_range(1..=3) {
                    state.edit(random);
                }
                history.push(state.clone());
            }
            6 | 7 => state = history.choose(random).unwrap().clone(),
            _ => {}
        }
        state
    }

    fn job(&self, job: usize, builds: usize, seed: u64, all: &Barrier) {
        let mut random = StdRng::seed_from_u64(seed + job as u64);
        let machine = self.machine(job);
        let temporary = machine.home().join("temporary");
        std::fs::create_dir(&temporary).unwrap();
        for build in 0..builds {
            if build % ROUND == 0 {
                if all.wait().is_leader() {
                    self.engines.iter().for_each(Engine::wipe);
                }
                all.wait();
            }
            let state = self.next(&mut random);
            self.build(&machine, &temporary, job, &state, &mut random);
        }
    }

    fn build(&self, machine: &Machine, temporary: &Path, job: usize, state: &State, random: &mut StdRng) {
        state.check_out(&machine.folder());
        let image = format!("{}/{}:{job}", self.registry.host(), self.repository);
        let mut command = machine.command(env!("CARGO_BIN_EXE_hakobi"));
        command.env("TMPDIR", temporary);
        command.args(["build", "--network", "host", "--progress", "plain", "--cache", &self.cache, "--push", "-t", &image, "."]);
        let end = match random.random_range(0..20) {
            0 | 1 => End::Kill(Duration::from_millis(random.random_range(0..4000))),
            2 => End::Terminate(Duration::from_millis(random.random_range(0..3000))),
            _ => End::Alone,
        };
        let seen = watched(command, end);
        if seen.stopped.is_none() {
            let said = || format!("job {job}: {state:?}\n{}", seen.log);
            let of_the_engine = OF_THE_ENGINE.iter().all(|words| seen.log.contains(words));
            if seen.code != Some(0) && !of_the_engine {
                self.wrong.lock().unwrap().push(format!("failed: {}", said()));
            } else if seen.code == Some(0) {
                let open = format!("{}/{}:{job}", part("HAKOBI_TEST_REGISTRY_OPEN"), self.repository);
                if let Err(difference) = state.is_in(&open) {
                    self.wrong.lock().unwrap().push(format!("another image: {difference}\n{}", said()));
                }
            }
        } else if seen.stopped.is_some_and(|time| time > Duration::from_secs(5)) {
            self.wrong.lock().unwrap().push(format!("slow to stop: {:?}\n{}", seen.stopped, seen.log));
        }
        self.seen.lock().unwrap().push(seen);
    }

    /// Prunes again and again, as a nightly job that is far too eager.
    fn prune(&self, random: &mut StdRng) -> usize {
        let machine = self.machine(0);
        let most = (MOST / 2).to_string();
        let mut prunes = 0;
        while !self.over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(random.random_range(500..4000)));
            let grace = if random.random_bool(0.3) { "0s" } else { "10s" };
            machine.hakobi(&["cache", "prune", "--max-size", &most, "--grace", grace, "--cache", &self.cache]);
            prunes += 1;
        }
        prunes
    }

    /// Lets all jobs run while `harm` does harm, then checks that the cache is whole and small.
    fn run(self, harm: impl Fn(&mut StdRng) + Sync, size: impl Fn() -> u64, mend: impl FnOnce()) {
        let builds = usize::try_from(number("HAKOBI_SOAK_BUILDS", 200)).unwrap() / JOBS;
        let seed = number("HAKOBI_SOAK_SEED", 1);
        let (all, began) = (Barrier::new(JOBS), Instant::now());
        let mut faults = StdRng::seed_from_u64(seed + 100);
        // The same request never fails twice in a row: more is a registry that a plain push would not survive either.
        let mut last = String::new();
        self.registry.set(move |asked| {
            let fault = fault_of_registry(&mut faults, asked).filter(|_| last != asked.target);
            last = fault.as_ref().map_or_else(String::new, |_| asked.target.clone());
            fault
        });
        let prunes = std::thread::scope(|scope| {
            let jobs: Vec<_> = (0..JOBS)
                .map(|job| {
                    let (all, soak) = (&all, &self);
                    scope.spawn(move || soak.job(job, builds, seed, all))
                })
                .collect();
            let pruner = scope.spawn(|| self.prune(&mut StdRng::seed_from_u64(seed + 200)));
            let vandal = scope.spawn(|| {
                let mut random = StdRng::seed_from_u64(seed + 300);
                while !self.over.load(Ordering::SeqCst) {
                    harm(&mut random);
                }
            });
            let ends: Vec<_> = jobs.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            self.over.store(true, Ordering::SeqCst);
            vandal.join().unwrap();
            ends.into_iter().for_each(|end| end.unwrap());
            pruner.join().unwrap()
        });
        mend();
        self.registry.mend();
        watch::summary(&self.seen.lock().unwrap(), prunes, began.elapsed());
        let wrong = self.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{} of {} builds:\n{}", wrong.len(), builds * JOBS, wrong.join("\n\n"));
        let machine = self.machine(0);
        // Damage that no build has read is still there.
        machine.hakobi(&["cache", "verify", "--repair", "--cache", &self.cache]);
        machine.hakobi(&["cache", "verify", "--cache", &self.cache]).exits(0);
        let before = size();
        let most = MOST.to_string();
        for _ in 0..2 {
            machine.hakobi(&["cache", "prune", "--max-size", &most, "--grace", "0s", "--cache", &self.cache]).exits(0);
        }
        eprintln!("the cache: {before} bytes, {} after the prune", size());
        // Records and lists come on top of what is pruned by size.
        assert!(size() < MOST + MOST / 4, "{} bytes", size());
    }
}

/// A fault for about one request in a hundred, none of which a push gives up at.
fn fault_of_registry(random: &mut StdRng, asked: &Asked) -> Option<Fault> {
    let fault = match random.random_range(0..500) {
        0 => Fault::registry(503, "UNAVAILABLE"),
        1 => Fault::registry(429, "TOOMANYREQUESTS"),
        2 => Fault::Reset,
        3 if asked.method != "POST" => Fault::Lost,
        4 | 5 => Fault::Delay(Duration::from_millis(300)),
        _ => return None,
    };
    Some(fault)
}

fn fault_of_s3(random: &mut StdRng) -> Option<Fault> {
    let fault = match random.random_range(0..200) {
        0 => Fault::s3(503, "SlowDown"),
        1 => Fault::s3(500, "InternalError"),
        2 => Fault::s3(403, "AccessDenied"),
        3 => Fault::s3(404, "NoSuchKey"),
        4 => Fault::Reset,
        5 => Fault::Lost,
        6 => Fault::Truncate,
        7 => Fault::Flip,
        8 => Fault::OtherEtag,
        9..=12 => Fault::Delay(Duration::from_millis(random.random_range(0..800))),
        _ => return None,
    };
    Some(fault)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn size_of(folder: &Path) -> u64 {
    files(folder).iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// Damages a random file of the cache, every second or so: cuts it off, flips a bit, or removes it.
fn damage(folder: &Path, random: &mut StdRng) {
    std::thread::sleep(Duration::from_millis(random.random_range(500..2000)));
    let files = files(folder);
    let Some(file) = files.choose(random) else { return };
    let Ok(mut bytes) = std::fs::read(file) else { return };
    let middle = bytes.len() / 2;
    match random.random_range(0..3) {
        0 => bytes.truncate(middle),
        1 if !bytes.is_empty() => bytes[middle] ^= 1,
        _ => return drop(std::fs::remove_file(file)),
    }
    // The file may be a link's only other name, so another file takes its place.
    let other = file.with_extension("harm");
    let _ = std::fs::write(&other, bytes).and_then(|()| std::fs::rename(&other, file));
}

#[test]
#[ignore = "soak"]
fn soak_on_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let soak = Soak::new(cache.to_str().unwrap().to_owned(), Vec::new());
    soak.run(|random| damage(&cache, random), || size_of(&cache), || ());
}

#[test]
#[ignore = "soak"]
fn soak_on_s3() {
    let server = S3Server::start();
    let proxy = Arc::new(FaultProxy::start(server.endpoint().trim_start_matches("http://")));
    let mut faults = StdRng::seed_from_u64(number("HAKOBI_SOAK_SEED", 1));
    proxy.set(move |_| fault_of_s3(&mut faults));
    let mut variables = server.variables().to_vec();
    variables[0].1 = format!("http://{}", proxy.host());
    let soak = Soak::new(format!("s3://{BUCKET}/soak"), variables);
    let objects = server.objects();
    soak.run(|_| std::thread::sleep(Duration::from_millis(100)), || size_of(&objects), || proxy.mend());
    eprintln!("open uploads of killed builds: {}", server.open_uploads());
}
