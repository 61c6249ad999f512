//! Compares hakobi's images with those of `docker build`, path by path, for many Dockerfiles, each with a series of edits.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::os::unix::fs::PermissionsExt;

use support::build::{Build, Built};
use support::engine::{C28, D20, D28, Engine};
use support::image::{base, unique_image};
use support::machine::Machine;
use support::parts::unique;
use support::plain::{backdate, backdate_directories, now, same_as_plain};

/// A Dockerfile. `BASE` is the base image; `~` in front of a name says that Docker 20.10's own frontend does not know what it uses.
struct Case(&'static str, &'static str);

const CORPUS: &[Case] = &[
    Case("copy", "FROM BASE\nCOPY a.txt /a.txt\nCMD [\"true\"]\n"),
    Case("copy-all", "FROM BASE\nWORKDIR /app\nCOPY . .\nRUN cat a.txt dir/b.txt > /sum\n"),
    Case("run-then-copy", "FROM BASE\nRUN echo deps > /deps\nCOPY dir /app/dir\nENV A=1\nLABEL l=1\n"),
    Case("wildcard", "FROM BASE\nCOPY *.txt dir/*.md /docs/\n"),
    Case("one-wildcard", "FROM BASE\nCOPY dir/s*/deep.txt /deep\n"),
    Case("rename", "FROM BASE\nCOPY a.txt /b\nCOPY dir/b.txt /c/\nCOPY dir /d\nCOPY dir/ /e/\n"),
    Case("link", "FROM BASE\nCOPY link.txt /l\nCOPY dirlink /m\nCOPY dir/inner /n/\n"),
    Case("chown", "FROM BASE\nCOPY --chown=app:app a.txt /a\nCOPY --chown=1234 dir /d\nCOPY --chown=nobody:99 a.txt /b\n"),
    Case("~chmod", "FROM BASE\nCOPY --chmod=600 a.txt /a\nCOPY --chmod=755 dir /d\n"),
    Case("~link-copy", "FROM BASE\nRUN echo x > /x\nCOPY --link a.txt /deep/er/a\nCOPY --link --chown=5:6 dir /d\n"),
    Case(
        "~heredoc",
        "FROM BASE\nCOPY <<one <<two /h/\nfirst\none\nsecond\ntwo\nRUN <<end\ncat /h/one > /r\nend\nCOPY a.txt /a\n",
    ),
    Case("add", "FROM BASE\nADD a.txt dir /added/\nADD archive.tar /unpacked\n"),
    Case("workdir", "FROM BASE\nWORKDIR /w\nWORKDIR x/y\nUSER app\nWORKDIR /owned\nCOPY a.txt .\nRUN id -u > /tmp/id\n"),
    Case("user", "FROM BASE\nUSER app:app\nCOPY --chown=app a.txt /home/\nRUN cat /home/a.txt > /tmp/x\n"),
    Case("env", "FROM BASE\nENV A=1 B=two\nENV C=$A-$B\nRUN echo $C > /c\nCOPY a.txt /$B\n"),
    Case("arg", "ARG G=1\nFROM BASE\nARG G\nARG V=0\nRUN echo $V > /v\nARG UNUSED\nCOPY a.txt /a-$V\nLABEL v=$V\n"),
    Case("late-arg", "FROM BASE\nRUN echo before > /before\nARG V=0\nRUN echo after $V > /after\nCOPY a.txt /\n"),
    Case(
        "metadata",
        "FROM BASE\nEXPOSE 80 90/udp\nVOLUME /data\nSTOPSIGNAL SIGINT\nHEALTHCHECK CMD true\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN echo s > /s\nENTRYPOINT [\"x\"]\nCMD [\"y\"]\nMAINTAINER me\nONBUILD COPY . /on\nCOPY a.txt /\n",
    ),
    Case(
        "stages",
        "FROM BASE AS one\nRUN mkdir /o && echo made > /o/f\nCOPY a.txt /o/\nFROM BASE\nCOPY --from=one /o /p\nCOPY --from=one /o/f /q\n",
    ),
    Case(
        "three-stages",
        "FROM BASE AS deps\nCOPY dir/b.txt /b\nRUN cat /b /b > /bb\nFROM deps AS build\nCOPY a.txt /a\nRUN cat /a /bb > /out\nFROM BASE\nCOPY --from=deps /bb /bb\nCOPY --from=build /out /out\n",
    ),
    Case(
        "from-stage",
        "FROM BASE AS one\nRUN echo 1 > /one\nFROM one AS two\nCOPY a.txt /a\nFROM two\nRUN cat /one /a > /both\n",
    ),
    Case("unused-stage", "FROM BASE AS unused\nCOPY dir /never\nRUN false\nFROM BASE\nCOPY a.txt /a\n"),
    Case(
        "scratch",
        "FROM BASE AS b\nRUN echo built > /built\nCOPY a.txt /\nFROM scratch\nCOPY --from=b /built /a.txt /\nCOPY dir /dir\n",
    ),
    Case("from-image", "FROM BASE\nCOPY --from=BASE /etc/base-release /etc/passwd /copied/\nCOPY a.txt /\n"),
    Case(
        "stage-wildcard",
        "FROM BASE AS s\nRUN mkdir -p /s/x /s/y && echo 1 > /s/x/f && echo 2 > /s/y/f && ln -s x /s/l && chown app /s/x/f && chmod 4755 /s/y/f\nCOPY a.txt /s/x/\nFROM BASE\nCOPY --from=s /s/*/f /t/\nCOPY --from=s /s /u\nCOPY --from=s /s/l /v\n",
    ),
    Case(
        "bind",
        "FROM BASE\nRUN --mount=type=bind,target=/ctx cat /ctx/a.txt > /a\nRUN --mount=type=bind,source=dir/b.txt,target=/b cat /b > /bb\n",
    ),
    Case(
        "bind-stage",
        "FROM BASE AS s\nCOPY a.txt /x/a\nRUN echo y > /y\nFROM BASE\nRUN --mount=type=bind,from=s,source=/x,target=/m cat /m/a > /a\n",
    ),
    Case("cache-mount", "FROM BASE\nCOPY a.txt /a\nRUN --mount=type=cache,target=/var/c cp /a /var/c/ && cat /var/c/a > /b\n"),
    Case("tmpfs", "FROM BASE\nCOPY a.txt /a\nRUN --mount=type=tmpfs,target=/t cp /a /t/ && cat /t/a > /b\n"),
    Case(
        "whiteout",
        "FROM BASE\nRUN mkdir -p /w/x && echo 1 > /w/x/1 && echo 2 > /w/2\nRUN rm -r /w/x /w/2 && mkdir /w/x && echo 3 > /w/x/3\nCOPY a.txt /w/x/\n",
    ),
    Case(
        "modes",
        "FROM BASE\nRUN mkdir -m 1777 /m && touch /m/f && chmod 6711 /m/f && chown 7:8 /m/f\nCOPY dir /m\nRUN chmod 700 /m\n",
    ),
    Case(
        "onto",
        "FROM BASE\nRUN mkdir -p /real && ln -s real /to && ln -s /to/x /chain\nCOPY a.txt /to/a\nCOPY dir /to/x\nCOPY a.txt /chain/z\n",
    ),
    Case("dockerignore", "FROM BASE\nCOPY . /all\n"),
    Case("~exclude", "# syntax-free\nFROM BASE\nCOPY dir/*.md dir/b.txt /x/\nRUN ls /x > /list\n"),
    Case("~spaces", "FROM BASE\nCOPY [\"with space.txt\", \"ä.txt\", \"/with space/\"]\nRUN ls \"/with space\" > /ls\n"),
    Case("empty-dir", "FROM BASE\nCOPY dir/empty /e\nCOPY dir /f/\nRUN find /e /f > /found\n"),
    Case("default-target", "FROM BASE AS a\nCOPY a.txt /1\nFROM a AS b\nCOPY dir /2\nFROM b AS c\nRUN echo 3 > /3\n"),
    Case(
        "same-twice",
        "FROM BASE AS x\nRUN echo same > /f\nFROM BASE AS y\nRUN echo same > /f\nFROM BASE\nCOPY --from=x /f /1\nCOPY --from=y /f /2\nCOPY a.txt /\n",
    ),
    Case(
        "overwrite",
        "FROM BASE\nRUN echo old > /a.txt && mkdir -p /dir && echo old > /dir/b.txt\nCOPY a.txt /\nCOPY dir /dir\n",
    ),
    Case(
        "shell-form",
        "FROM BASE\nSHELL [\"/bin/sh\", \"-uc\"]\nRUN [\"/bin/sh\", \"-c\", \"echo exec > /e\"]\nRUN echo shell > /s\nCOPY a.txt /\n",
    ),
    Case("~security", "FROM BASE\nRUN --network=none echo none > /n\nCOPY a.txt /\nRUN --network=host echo host > /h\n"),
];

/// Stages with a tool that decides by time and keeps what it made in a cache mount. Its daemon must be wiped before each run of hakobi:
/// a living daemon keeps the objects of plain builds, which a file that changes under its old time does not renew.
const MOUNTS: &[Case] = &[
    Case(
        "make",
        "FROM BASE AS b\nCOPY . /src\nRUN --mount=type=cache,target=/obj cd /src && find . -type f | while read -r f; do mkdir -p \"/obj/${f%/*}\"; [ -e \"/obj/$f\" ] && [ ! \"$f\" -nt \"/obj/$f\" ] || cat \"$f\" > \"/obj/$f\"; done; find . | sort | while read -r f; do echo \"$f\"; [ ! -f \"$f\" ] || cat \"/obj/$f\"; done > /all\nFROM BASE\nCOPY --from=b /all /all\n",
    ),
    Case(
        "make-by-rename",
        "FROM BASE AS b\nCOPY dir /src\nRUN --mount=type=cache,id=o,target=/obj,sharing=locked cd /src && find . -type f | while read -r f; do mkdir -p \"/obj/${f%/*}\"; [ \"$f\" -ot \"/obj/$f\" ] || { cp \"$f\" /obj/new; mv /obj/new \"/obj/$f\"; }; done; cat $(find . -type f | sort | sed s,^,/obj/,) > /all\nFROM BASE\nCOPY --from=b /all /all\nCOPY a.txt /\n",
    ),
];

/// An edit, and whether it leaves the image as it was: for each Dockerfile (`Some(true)`), or for none that sees it.
type Edit = (&'static str, bool, fn(&Machine));

const EDITS: &[Edit] = &[
    ("nothing", true, |_| ()),
    ("touch", true, |m| touch(m, "dir/b.txt")),
    ("content", false, |m| write(m, "a.txt", "other\n")),
    ("same size and time", false, |m| in_place(m, "a.txt", "OTHER\n")),
    ("mode", false, |m| std::fs::set_permissions(m.folder().join("a.txt"), PermissionsExt::from_mode(0o755)).unwrap()),
    ("deep content", false, |m| write(m, "dir/sub/deep.txt", "deeper\n")),
    ("new file", false, |m| write(m, "dir/new.md", "new\n")),
    ("rename", false, |m| std::fs::rename(m.folder().join("dir/new.md"), m.folder().join("dir/renamed.md")).unwrap()),
    ("ignored file", true, |m| write(m, "ignored/x", &unique("x"))),
    ("comment", true, |m| write(m, "Dockerfile", &format!("# comment\n{}", m.read("Dockerfile")))),
    ("blank lines", true, |m| write(m, "Dockerfile", &m.read("Dockerfile").replace("\nCOPY", "\n\n\nCOPY"))),
    ("label", true, |m| write(m, "Dockerfile", &format!("{}LABEL last=1\n", m.read("Dockerfile")))),
    ("cmd", true, |m| write(m, "Dockerfile", &format!("{}CMD [\"other\"]\n", m.read("Dockerfile")))),
    ("env", true, |m| write(m, "Dockerfile", &format!("{}ENV LAST=1\n", m.read("Dockerfile")))),
    ("removed", false, |m| std::fs::remove_file(m.folder().join("dir/renamed.md")).unwrap()),
    ("run", false, |m| write(m, "Dockerfile", &m.read("Dockerfile").replace("echo ", "echo x"))),
];

fn write(machine: &Machine, path: &str, text: &str) {
    machine.write(path, text);
}

fn touch(machine: &Machine, path: &str) {
    let file = std::fs::File::options().write(true).open(machine.folder().join(path)).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
}

/// Other bytes of the same length, with the time that the file had.
fn in_place(machine: &Machine, path: &str, text: &str) {
    let full = machine.folder().join(path);
    let before = std::fs::metadata(&full).unwrap();
    assert_eq!(before.len(), text.len() as u64);
    std::fs::write(&full, text).unwrap();
    std::fs::File::options().write(true).open(&full).unwrap().set_modified(before.modified().unwrap()).unwrap();
}

fn project(machine: &Machine, dockerfile: &str, base: &str) {
    machine
        .write("Dockerfile", &dockerfile.replace("BASE", base))
        .write(".dockerignore", "ignored\nDockerfile\n.dockerignore\n*.json\n")
        .write("a.txt", "first\n")
        .write("with space.txt", "space\n")
        .write("ä.txt", "umlaut\n")
        .write("dir/b.txt", "bee\n")
        .write("dir/read.md", "read\n")
        .write("dir/sub/deep.txt", "deep\n")
        .write("ignored/x", "x");
    let folder = machine.folder();
    std::fs::create_dir_all(folder.join("dir/empty")).unwrap();
    std::os::unix::fs::symlink("a.txt", folder.join("link.txt")).unwrap();
    std::os::unix::fs::symlink("dir", folder.join("dirlink")).unwrap();
    std::os::unix::fs::symlink("../a.txt", folder.join("dir/inner")).unwrap();
    std::fs::set_permissions(folder.join("dir/sub"), PermissionsExt::from_mode(0o750)).unwrap();
    let mut archive = tar::Builder::new(std::fs::File::create(folder.join("archive.tar")).unwrap());
    archive.append_path_with_name(folder.join("a.txt"), "packed/a.txt").unwrap();
    archive.finish().unwrap();
    backdate(&folder, 2020);
}

struct Bench<'a> {
    engine: &'a Engine,
    machine: Machine,
    /// The directory or the URL of the cache.
    cache: String,
    planned: String,
    plain: String,
    /// In seconds of the Unix epoch.
    since: u64,
}

impl Bench<'_> {
    fn series(&self, Case(case, dockerfile): &Case, base: &str, edits: &[&str], wiped: bool) {
        project(&self.machine, dockerfile, base);
        assert_eq!(self.planned().warnings(), [""; 0], "{case}");
        self.compare(&format!("{}: {case}", self.engine.name()));
        for (edit, unchanged, change) in EDITS.iter().filter(|(edit, ..)| edits.is_empty() || edits.contains(edit)) {
            let what = format!("{}: {case} after {edit}", self.engine.name());
            change(&self.machine);
            // As with files: a directory whose files are as they were may come from an earlier build.
            backdate_directories(&self.machine.folder());
            if wiped {
                self.engine.wipe();
            }
            let built = self.planned();
            if *unchanged {
                assert_eq!((built.tier(), built.layers("pushed")), ("unchanged", 0), "{what}: {built}");
            }
            self.compare(&what);
        }
    }

    fn planned(&self) -> Built {
        Build::new(&self.machine).cache(&self.cache).report("report.json").strategy("auto").push(&self.planned).done()
    }

    #[track_caller]
    fn compare(&self, what: &str) {
        same_as_plain(self.engine, &self.machine, &self.planned, &self.plain, self.since, what);
    }
}

/// Returns whether the cache of a case is in the registry: that of about half of the cases, always the same ones.
/// `HAKOBI_CORPUS_SWAP=1` puts the other half there.
fn in_registry(case: &Case) -> bool {
    case.0.len().is_multiple_of(2) != std::env::var("HAKOBI_CORPUS_SWAP").is_ok_and(|value| value == "1")
}

/// `wiped`: before each run the daemon forgets everything, so that nothing but the store can give a result.
fn compare(name: &'static str, cases: impl Iterator<Item = &'static Case>, edits: &[&str], wiped: bool) {
    let engine = Engine::lock(name);
    engine.wipe();
    let base = base("busybox");
    // Some cases alone, by their names, when one is looked into.
    let chosen = std::env::var("HAKOBI_CORPUS").ok();
    let chosen = |case: &Case| chosen.as_ref().is_none_or(|names| names.split(',').any(|name| name == case.0));
    let known = |case: &&Case| !(case.0.starts_with('~') && name == D20) && chosen(case);
    let failed: Vec<&str> = cases
        .filter(known)
        .filter(|case| {
            let since = now();
            let [planned, plain] = ["planned", "plain"].map(unique_image);
            let in_registry = in_registry(case);
            let cache =
                if in_registry { format!("oci://{}", planned.replace("planned", "cache")) } else { "../cache".to_owned() };
            let bench = Bench { engine: &engine, machine: Machine::with(&engine.host()), cache, planned, plain, since };
            // Each case is tried, so that one run tells all.
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.series(case, &base, edits, wiped))).is_err()
        })
        .map(|case| case.0)
        .collect();
    assert!(failed.is_empty(), "{name}: {failed:?}");
}

#[test]
fn a_part_on_docker_20() {
    compare(D20, CORPUS.iter().step_by(9), &["content", "label"], false);
}

#[test]
fn a_part_on_docker_28() {
    compare(D28, CORPUS.iter().skip(1).step_by(7), &["same size and time", "cmd", "run"], false);
}

#[test]
fn a_part_on_the_containerd_store() {
    compare(C28, CORPUS.iter().skip(2).step_by(6), &["nothing", "content"], true);
}

#[test]
fn mounts_and_times_on_docker_28() {
    compare(D28, MOUNTS.iter(), &["touch", "same size and time", "new file", "rename"], true);
}

#[test]
#[ignore = "long"]
fn long_mounts_and_times_on_docker_20() {
    compare(D20, MOUNTS.iter(), &[], true);
}

#[test]
#[ignore = "long"]
fn long_mounts_and_times_on_docker_28() {
    compare(D28, MOUNTS.iter(), &[], true);
}

#[test]
#[ignore = "long"]
fn long_mounts_and_times_on_the_containerd_store() {
    compare(C28, MOUNTS.iter(), &[], true);
}

#[test]
#[ignore = "long"]
fn long_the_whole_corpus_on_docker_20() {
    compare(D20, CORPUS.iter(), &["content", "same size and time", "label", "run"], false);
}

#[test]
#[ignore = "long"]
fn long_the_whole_corpus_on_docker_28() {
    compare(D28, CORPUS.iter(), &[], false);
}

#[test]
#[ignore = "long"]
fn long_the_whole_corpus_on_the_containerd_store() {
    compare(C28, CORPUS.iter(), &[], false);
}
