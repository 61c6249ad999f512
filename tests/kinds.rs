//! Tests appends of several kinds of copies, on every engine: by hakobi, or by the daemon on a skeleton. It compares each image
//! with that of `docker build`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod support;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use support::build::Build;
use support::engine::{C28, D20, D28, Engine};
use support::image::{base, unique_image};
use support::machine::Machine;
use support::plain::{backdate, now, same_as_plain};

/// What all of them are laid on.
const BELOW: &str = "RUN mkdir -p /srv/app/sub /srv/old /real/deep && ln -s app /srv/to && ln -s ../real/deep /srv/deep && ln -s ../../srv/old /real/deep/up \
     && chown 3:4 /srv/app && chmod 2750 /srv/old && echo old > /srv/app/f && mkfifo /srv/pipe && mkdir -p /srv/new/dir && echo x > /srv/new/dir/x";

/// `~` in front of a name: Docker 20.10's own frontend does not know it.
struct Kind {
    name: &'static str,
    lines: &'static str,
    /// The files that are edited, all at once or one after the other.
    edits: &'static [&'static [&'static str]],
}

const fn kind(name: &'static str, lines: &'static str, edits: &'static [&'static [&'static str]]) -> Kind {
    Kind { name, lines, edits }
}

const KINDS: &[Kind] = &[
    kind(
        "owners that were copied",
        "COPY etc/passwd etc/group /etc/\nCOPY --chown=web:www s /srv/app/\nCOPY --chown=app f /g",
        &[&["s/b"], &["etc/passwd", "s/b"], &["s/b"], &["f"]],
    ),
    kind(
        "a link that was copied",
        "COPY s /srv/app/\nCOPY f /srv/app/current/f\nCOPY s/sub /srv/app/current/more/",
        &[&["s/b", "f"], &["f"]],
    ),
    kind("links that lead upwards", "COPY f /srv/deep/../f\nCOPY f /srv/deep/up/g\nCOPY s /srv/deep/s", &[&["f", "s/b"]]),
    kind("~a pattern that leaves out", "COPY --exclude=*.md --exclude=sub s /srv/app/", &[&["s/b"], &["s/read.md", "s/b"]]),
    kind("~bits by letters", "COPY --chmod=u+x,go-r f /srv/app/\nCOPY --chmod=a=rX s /new/s", &[&["f", "s/b"]]),
    kind("~bits of directories that are made", "COPY --chmod=600 f /new/deep/f\nCOPY --chmod=711 s /srv/", &[&["f", "s/b"]]),
    kind("a pipe and a socket", "COPY special /srv/app/", &[&["special/f"]]),
    kind("a pipe where a file was", "COPY special/ /srv/\nCOPY f /srv/pipe", &[&["special/f", "f"], &["f"]]),
    kind("extended attributes", "COPY attributes /srv/app/\nCOPY attributes/cap /cap", &[&["attributes/f", "attributes/cap"]]),
    kind("no archive", "ADD f plain.tar s /srv/app/\nADD plain.tar /srv/to/x.tar", &[&["f", "plain.tar"]]),
    kind("compressed and no archive", "ADD compressed.gz f /srv/app/", &[&["f"]]),
    kind("an archive", "ADD packed.tar f /srv/\nADD packed.tgz /srv/to/\nCOPY f /srv/link/f", &[&["f"]]),
    kind("archives by a wildcard", "ADD *.t* /srv/", &[&["plain.tar"]]),
    kind("a directory that gives its group", "COPY f /srv/old/deep/f\nWORKDIR /srv/old/w", &[&["f"]]),
    kind("odd names", "COPY odd /srv/app/\nCOPY [\"odd/ä [*]\", \"/srv/q [x]\"]", &[&["odd/ä [*]"]]),
    // Nothing else asks for the directory.
    kind("a pattern beyond ASCII", "COPY [\"odd/ä*\", \"/srv/q\"]", &[&["odd/ä [*]"]]),
];

fn write(folder: &Path, path: &str, text: &[u8]) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
}

/// An archive whose entries meet what is below.
fn packed() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let header = |kind, size, mode| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(5);
        header.set_gid(6);
        header.set_mtime(1_600_000_000);
        header
    };
    use tar::EntryType::{Directory, Regular, Symlink};
    archive.append_data(&mut header(Regular, 2, 0o640), "to/in", &b"1\n"[..]).unwrap();
    archive.append_data(&mut header(Directory, 0, 0o700), "app/", &b""[..]).unwrap();
    archive.append_data(&mut header(Regular, 2, 0o644), "app/f", &b"2\n"[..]).unwrap();
    archive.append_link(&mut header(Symlink, 0, 0o777), "link", "app").unwrap();
    archive.append_data(&mut header(Regular, 2, 0o644), "link/through", &b"3\n"[..]).unwrap();
    archive.append_data(&mut header(Regular, 2, 0o644), "new", &b"4\n"[..]).unwrap();
    archive.append_link(&mut header(tar::EntryType::Link, 0, 0o644), "hard", "app/f").unwrap();
    archive.into_inner().unwrap()
}

fn project(machine: &Machine) {
    let folder = machine.folder();
    let head = format!("FROM {}\n{BELOW}\n", base("busybox"));
    write(&folder, "Dockerfile", format!("{head}COPY .dockerignore* /t0/\n").as_bytes());
    write(&folder, ".dockerignore", b"Dockerfile\n");
    write(&folder, "f", b"file\n");
    write(&folder, "s/b", b"bee\n");
    write(&folder, "s/read.md", b"read\n");
    write(&folder, "s/sub/deep", b"deep\n");
    symlink("sub", folder.join("s/current")).unwrap();
    write(&folder, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nweb:x:77:78::/:/bin/sh\napp:x:1001:1002::/:/bin/sh\n");
    write(&folder, "etc/group", b"root:x:0:\nwww:x:99:\n");
    write(&folder, "special/f", b"f\n");
    assert!(Command::new("mkfifo").args(["-m", "640"]).arg(folder.join("special/pipe")).status().unwrap().success());
    drop(UnixListener::bind(folder.join("special/socket")).unwrap());
    write(&folder, "attributes/f", b"f\n");
    write(&folder, "attributes/cap", b"c\n");
    xattr::set(folder.join("attributes/f"), "user.color", b"red").unwrap();
    xattr::set(folder.join("attributes"), "user.color", b"blue").unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr::set(folder.join("attributes/cap"), "security.capability", &capability).unwrap();
    write(&folder, "plain.tar", b"no archive\n");
    let zipped = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    };
    write(&folder, "compressed.gz", &zipped(b"no tar\n"));
    write(&folder, "packed.tar", &packed());
    write(&folder, "packed.tgz", &zipped(&packed()));
    write(&folder, "odd/ä [*]", b"1\n");
    write(&folder, "odd/back\\slash", b"2\n");
    write(&folder, "odd/new\nline", b"3\n");
    std::fs::set_permissions(folder.join("f"), PermissionsExt::from_mode(0o640)).unwrap();
    backdate(&folder, 2020);
}

fn edit(folder: &Path, path: &str) {
    let mut text = std::fs::read_to_string(folder.join(path)).unwrap();
    // More owners, for the others that look names up.
    text.push_str(if path == "etc/passwd" { "more:x:7:7::/:\n" } else { "edited\n" });
    std::fs::write(folder.join(path), text).unwrap();
    if path == "attributes/cap" {
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        xattr::set(folder.join(path), "security.capability", &capability).unwrap();
    }
}

/// How each edit ended.
fn tried(engine: &Engine, kind: &Kind, since: u64) -> Vec<String> {
    let machine = Machine::with(&engine.host());
    let (image, plain) = (unique_image("kind"), unique_image("plain"));
    project(&machine);
    let build = Build::cached(&machine).push(&image);
    build.done();
    let mut ends = Vec::new();
    // First the lines are new: no daemon has shown yet that hakobi makes the same of them.
    let text = machine.read("Dockerfile").replace("COPY .dockerignore* /t0/\n", kind.lines);
    machine.write("Dockerfile", &text);
    for files in [&[][..]].iter().chain(kind.edits) {
        files.iter().for_each(|path| edit(&machine.folder(), path));
        backdate(&machine.folder(), 2021);
        let built = build.done_on_empty(engine);
        let what = format!("{}: {} after {files:?}\n{}", engine.name(), kind.name, built.log());
        same_as_plain(engine, &machine, &image, &plain, since, &what);
        ends.push(built.appended().map_or_else(|| format!("{}\n{}", built.tier(), built.log()), str::to_owned));
    }
    ends
}

fn every_kind(name: &'static str) {
    let engine = Engine::fresh(name);
    let chosen = std::env::var("HAKOBI_CORPUS").ok();
    let chosen = |kind: &&Kind| chosen.as_ref().is_none_or(|names| names.split(',').any(|name| name == kind.name));
    let since = now();
    let mut failed = Vec::new();
    for kind in KINDS.iter().filter(|kind| !(kind.name.starts_with('~') && name == D20)).filter(chosen) {
        let ends = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tried(&engine, kind, since)));
        match ends {
            Ok(ends) => {
                eprintln!("{name}: {}: {ends:?}", kind.name);
                if ends.iter().any(|end| !end.starts_with("by ")) {
                    failed.push(kind.name);
                }
            }
            Err(_) => failed.push(kind.name),
        }
    }
    assert!(failed.is_empty(), "{name}: {failed:?}");
}

#[test]
#[ignore = "long"]
fn long_every_kind_on_docker_20() {
    every_kind(D20);
}

#[test]
fn every_kind_on_docker_28() {
    every_kind(D28);
}

#[test]
#[ignore = "long"]
fn long_every_kind_on_the_containerd_store() {
    every_kind(C28);
}

/// What is not appended says why, in the plan and in the report.
#[test]
fn what_is_not_appended_says_why() {
    let engine = Engine::fresh(D28);
    let machine = Machine::with(&engine.host());
    project(&machine);
    // An archive as far as its first bytes tell: bzip2.
    write(&machine.folder(), "packed.tbz", b"BZh91AY&SY no archive\n");
    let image = unique_image("kind");
    let build = Build::cached(&machine).push(&image);
    build.done();
    let text = machine.read("Dockerfile").replace("COPY .dockerignore* /t0/", "ADD packed.tbz /srv/");
    machine.write("Dockerfile", &text);
    engine.wipe();
    let why = "pulling its base image: hakobi cannot list the archive packed.tbz: it supports only uncompressed, gzip and zstd archives";
    let told = machine.hakobi(&["plan", "--network", "host", "--cache", "../cache", "-t", &image, "."]).exits(0).stdout;
    assert!(told.contains(why) && !told.contains("only file operations"), "{told}");
    let built = build.done().is("partial");
    assert!(built["steps"].to_string().contains(why), "{built}");
    assert!(built.log().contains("pulling the base image: cannot append `ADD packed.tbz /srv/`"), "{built}");
}
