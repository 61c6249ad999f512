//! A project whose first stage compiles, on a machine with Docker and without a daemon.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::build::{Build, Built};
use crate::support::engine::crane;
use crate::support::fault_proxy::FaultProxy;
use crate::support::image::{base, unique_image};
use crate::support::installed::{left_behind, machine_with_docker};
use crate::support::machine::Machine;
use crate::support::s3::{BUCKET, S3Server};

/// A tool like make: compiles each source that is newer than its object, and names what it compiles.
const MAKE: &str = "mkdir -p /obj/o && for f in /src/*.c; do o=/obj/o/$(basename $f); \
    if [ ! -e $o ] || [ $f -nt $o ]; then cp $f $o; echo compiled $(basename $f); fi; done; \
    cd /obj/o && for o in *; do [ -e /src/$o ] && cat $o; done > /app";

pub struct Project {
    machine: Machine,
    image: String,
    /// The id of its cache mount. Two projects with one id on one daemon would find each other's files.
    id: String,
    cache: PathBuf,
    /// Its cache as the command line names it, if that is not its directory.
    url: Option<String>,
    sources: BTreeMap<String, String>,
    /// Whether its command fails after it has compiled.
    pub fails: bool,
    /// The size of a file of noise in its cache mount, in bytes, which each run reads.
    pub large: Option<u64>,
    /// A word that a running command has in its arguments, if it is to wait before it compiles.
    pub waits: Option<&'static str>,
}

impl Project {
    pub fn new(kind: &str) -> Self {
        let sources = ["a", "b", "c", "d"].map(|name| (format!("{name}.c"), format!("{name}1\n")));
        let machine = machine(kind);
        let cache = machine.home().join("cache");
        let image = unique_image("lazy");
        let id = image.replace(['/', ':'], "-");
        Self { machine, image, id, cache, url: None, sources: sources.into(), fails: false, large: None, waits: None }
    }

    /// Returns a project whose cache is in a bucket, behind a proxy.
    pub fn on_s3(kind: &str, server: &S3Server, proxy: &FaultProxy) -> Self {
        let mut project = Self::new(kind);
        let mut variables = server.variables();
        variables[0].1 = format!("http://{}", proxy.host());
        variables.iter().for_each(|(name, value)| project.machine.put(name, value));
        project.cache = server.objects();
        project.url = Some(format!("s3://{BUCKET}"));
        project
    }

    /// Returns its directory for temporary files.
    pub fn temporary(&self) -> PathBuf {
        self.machine.home().join("tmp")
    }

    /// Returns the same project on another machine, with the same cache.
    pub fn twin(&self) -> Self {
        self.with_docker("d28")
    }

    /// Returns the same project on a machine with another Docker, with the same cache.
    pub fn with_docker(&self, kind: &str) -> Self {
        let (image, id, cache, sources) = (self.image.clone(), self.id.clone(), self.cache.clone(), self.sources.clone());
        // Another tag of the same repository has the same disk.
        Self {
            machine: machine(kind),
            image: format!("{image}-twin"),
            id,
            cache,
            url: self.url.clone(),
            sources,
            fails: self.fails,
            large: None,
            waits: None,
        }
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    pub fn image(&self) -> &str {
        &self.image
    }

    pub fn cache(&self) -> &Path {
        &self.cache
    }

    pub fn set(&mut self, name: &str, text: &str) {
        self.sources.insert(name.to_owned(), text.to_owned());
    }

    /// Returns a build by a daemon of hakobi's own.
    pub fn build(&self) -> Build<'_> {
        self.build_by("lazy")
    }

    /// Returns a build by this daemon. The project is checked out anew.
    pub fn build_by(&self, daemon: &str) -> Build<'_> {
        let _ = fs::remove_dir_all(self.machine.folder().join("src"));
        for (name, text) in &self.sources {
            self.machine.write(&format!("src/{name}"), text);
        }
        let (base, id) = (base("busybox"), &self.id);
        let fails = if self.fails { " && false" } else { "" };
        let large = self.large.map_or_else(String::new, |size| {
            format!("{{ [ -e /obj/noise ] || head -c {size} /dev/urandom > /obj/noise; }} && md5sum /obj/noise && ")
        });
        // A wait of another length is not another command: the machine's daemon has to wait too.
        let waits = self.waits.map_or_else(String::new, |word| format!("sh -c 'sleep 3; :' {word} && "));
        self.machine.write(
            "Dockerfile",
            &format!(
                "FROM {base} AS build\nCOPY src /src\nRUN --mount=type=cache,id={id},target=/obj {large}{waits}{MAKE}{fails}\n\
                 FROM {base}\nCOPY --from=build /app /\n"
            ),
        );
        let cache = self.url.as_deref().or(self.cache.to_str()).unwrap();
        let build = Build::new(&self.machine).report("../report.json").cache(cache);
        build.push(&self.image).with(&["--daemon", daemon, "--progress", "plain"])
    }

    /// Returns the sources that a build compiled.
    pub fn compiled(&self, built: &Built) -> Vec<String> {
        let names = built.log().lines().filter_map(|line| line.split_once(" compiled ").map(|(_, name)| name.trim().to_owned()));
        // The command itself is in the log too.
        names.filter(|name| name.ends_with(".c") && !name.contains(' ')).collect()
    }

    /// Returns what its image has to have.
    pub fn app(&self) -> String {
        self.sources.values().map(String::as_str).collect()
    }

    /// Waits until the project's command waits, and kills the process of its daemon that has these words in its command line.
    pub fn kill_when_it_waits(&self, words: &str) {
        let word = self.waits.unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !processes(&self.machine).iter().any(|(_, command)| command.contains(word)) {
            assert!(Instant::now() < deadline, "no command waits");
            std::thread::sleep(Duration::from_millis(20));
        }
        let all = processes(&self.machine);
        // `unshare` has the daemon's command line too, and is its parent.
        let pid = all.iter().filter(|(_, command)| command.contains(words)).map(|(pid, _)| *pid).max().unwrap();
        std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    }

    /// Returns the record of the disk in the cache, and its file.
    pub fn disk_record(&self) -> Option<(PathBuf, Value)> {
        files(&self.cache.join("steps")).into_iter().find_map(|path| {
            let mut text = String::new();
            flate2::read::GzDecoder::new(&*fs::read(&path).unwrap()).read_to_string(&mut text).ok()?;
            let record: Value = serde_json::from_str(&text).ok()?;
            record.pointer("/record/disk/nodes").is_some().then_some((path, record))
        })
    }

    /// Returns the disk in the cache.
    pub fn disk(&self) -> Option<Value> {
        Some(self.disk_record()?.1)
    }

    /// Removes from the cache what the last build does not need.
    pub fn prune(&self) {
        let cache = self.cache.to_str().unwrap();
        self.machine.hakobi(&["cache", "prune", "--cache", cache, "--keep-builds", "1", "--grace", "0s"]).exits(0);
    }

    /// Returns the size of the cache in bytes.
    pub fn cache_bytes(&self) -> u64 {
        files(&self.cache).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
    }

    /// Returns what is left of its daemons after some seconds.
    pub fn left_behind(&self) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let left = left_behind(&self.machine);
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Returns the processes that have a machine's directory in their environment or command line, or that wait in a container.
fn processes(machine: &Machine) -> Vec<(u32, String)> {
    let home = machine.home().to_str().unwrap();
    let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let all = all.filter_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let command = String::from_utf8_lossy(&fs::read(process.path().join("cmdline")).ok()?).replace('\0', " ");
        let environment = String::from_utf8_lossy(&fs::read(process.path().join("environ")).unwrap_or_default()).into_owned();
        let is_ours = command.contains(home) || environment.contains(home) || command.starts_with("sh -c sleep 3");
        is_ours.then_some((pid, command))
    });
    all.collect()
}

fn machine(kind: &str) -> Machine {
    let machine = machine_with_docker(kind);
    let temporary = machine.home().join("tmp");
    fs::create_dir(&temporary).unwrap();
    machine.set("TMPDIR", temporary.to_str().unwrap())
}

/// Returns all files below a directory.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Returns what the project's image has.
pub fn app_of(image: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let tar = directory.path().join("image.tar");
    crane(&["export", image, tar.to_str().unwrap()]);
    let mut archive = tar::Archive::new(fs::File::open(tar).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().as_ref() == Path::new("app") {
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            return text;
        }
    }
    panic!("{image} has no app");
}
