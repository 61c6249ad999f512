//! Compares the layers of the assembler with those of every engine, for one Dockerfile with many copies.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use hakobi::build_context::{self, Entry, NodeKind, Tree};
use hakobi::domain::Digest;
use hakobi::engine::buildkit::{BuildKit, Session, SessionParts, SolveRequest, Solved, pb};
use hakobi::engine::{Dialer, Docker};
use hakobi::event::Events;
use hakobi::graph::{Graph, Op};
use hakobi::layers::assemble::{AssembledKind, AssembledLayer, AssemblyDoubt, Files, Source, assemble_layer};
use hakobi::layers::{LayerIndex, PathIndex};
use hakobi::plan::selection;
use hakobi::settings::DaemonEndpoint;
use serde_json::Value;
use support::engine::{C28, D20, D28, Engine};
use support::machine::{Machine, Run};
use support::parts::{part, unique};
use support::plain::{OF_DIRECTORIES, backdate, now};

/// What the copies meet.
const BELOW: &str = "RUN mkdir -p /app/e /app/t /real/deep && chmod 750 /app && chown 3:4 /app && chmod 700 /app/e && chmod 1777 /app/t \
    && ln -s app /tolink && ln -s /app/e /abs && ln -s tolink/e /chain && ln -s new/there /dangling && ln -s ../app /up \
    && ln -s real/deep /one && ln -s lone /two && ln -s one /lone && ln -s one/../lexical /lex && ln -s ../z /real/deep/up \
    && echo x > /file && ln -s file /flink && ln -s /nowhere /app/inner && ln -s /nowhere /app/l && mkdir -m 2775 /setgid \
    && chown 0:50 /setgid && mkdir -p /merge/sub /merge/sub/empty && chmod 711 /merge/sub && chown 7:8 /merge/sub && echo old > /merge/b";

/// Each line makes a layer; `?` is in front of one that is not worked out.
const LINES: &[&str] = &[
    "COPY f /x",
    "COPY f /y/",
    "COPY f /",
    "COPY f /app",
    "COPY f /app/e/y",
    "COPY f /n/o/p",
    "COPY f /tolink/q",
    "COPY f /abs/r",
    "COPY f /chain/s",
    "COPY f /dangling/",
    "COPY f /flink",
    "COPY f /up/t/",
    "COPY f /one/up",
    "COPY f /two/up",
    "COPY f /lex",
    "COPY f /app/inner/",
    "COPY f /file",
    "COPY f /file",
    "COPY dir /app",
    "COPY dir/ /merge/",
    "COPY dir /merge",
    "COPY dir/empty /merge/sub/empty",
    "COPY dir /fresh/deep",
    "COPY dir/sub* dir/*.md /some/",
    "COPY link dirlink /links/",
    "COPY . /all",
    "COPY hard/a /hard/one",
    "COPY hard /hard/two",
    "COPY hard/a hard/b /hard/three/",
    "COPY dir/b f /again/",
    "COPY --chown=app f /owned/by/app",
    "COPY --chown=app:1234 dir /owned/dir",
    "COPY --chown=77 f dir /owned/",
    "COPY --chown=:9 f /owned/group",
    "COPY --chown=nobody-here:none f /owned/none",
    "COPY f /setgid/f",
    "COPY dir /setgid/",
    "?COPY f /setgid/new/f",
    "ADD f dir /added/",
    "?ADD archive.tar /added/",
    "?ADD compressed /added/",
    "WORKDIR /",
    "WORKDIR /app",
    "WORKDIR /work/deep",
    "COPY f .",
    "COPY dir ./",
    "WORKDIR /tolink/here",
    "COPY [\"with space\", \"ä\", \"/with space/\"]",
    "COPY setuid /setuid",
    "COPY cap /cap/one",
    "COPY [\"LONG\", \"/LONG/\"]",
    "USER app",
    "WORKDIR /work/users",
    "COPY f own",
];

/// What Docker 20.10's own frontend does not know.
const NEWER: &[&str] = &[
    "COPY --chmod=600 f /mode/../modes",
    "?COPY --chmod=711 dir /merge",
    "?COPY --chmod=600 f /mode/deep/f",
    "?COPY --chmod=u+x f /mode/f",
    "COPY <<one <<two /here/\nfirst\none\nsecond\ntwo\nCOPY --chmod=755 <<run /here/run\nfirst\nrun",
    "COPY --link f /app/linked",
    "COPY --link --chown=5:6 dir /app/linkeddir/deep",
    "COPY --exclude=*.md --exclude=sub dir /excluded",
];

fn project(folder: &Path, dockerfile: &str) {
    let write = |path: &str, text: &[u8], mode: u32| {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    };
    write("Dockerfile", dockerfile.as_bytes(), 0o644);
    write(".dockerignore", b"ignored\n", 0o644);
    write("f", b"file\n", 0o640);
    write("setuid", b"s\n", 0o4755);
    write("cap", b"c\n", 0o755);
    write("with space", b"s\n", 0o644);
    write("ä", b"a\n", 0o600);
    write(&"n".repeat(120), b"long\n", 0o644);
    write("dir/b", b"bee\n", 0o644);
    write("dir/read.md", b"read\n", 0o644);
    write("dir/sub/deep", b"deep\n", 0o600);
    write("hard/a", b"hard\n", 0o644);
    write("ignored/x", b"x", 0o644);
    std::fs::hard_link(folder.join("hard/a"), folder.join("hard/b")).unwrap();
    std::fs::create_dir_all(folder.join("dir/empty")).unwrap();
    symlink("f", folder.join("link")).unwrap();
    symlink("dir", folder.join("dirlink")).unwrap();
    symlink("../f", folder.join("dir/l")).unwrap();
    for (path, mode) in [("dir", 0o700), ("dir/sub", 0o2750), ("dir/empty", 0o1777), ("hard", 0o711)] {
        std::fs::set_permissions(folder.join(path), PermissionsExt::from_mode(mode)).unwrap();
    }
    // cap_net_bind_service+ep
    xattr::set(folder.join("cap"), "security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut archive = tar::Builder::new(std::fs::File::create(folder.join("archive.tar")).unwrap());
    archive.append_path_with_name(folder.join("f"), "packed/f").unwrap();
    archive.finish().unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, b"no tar").unwrap();
    write("compressed", &encoder.finish().unwrap(), 0o644);
}

async fn compiled(engine: &Engine, folder: &Path) -> Graph {
    let endpoint = DaemonEndpoint { url: engine.host(), tls: None, origin: "test".to_owned() };
    let docker = Docker::connect(Dialer::new(&endpoint).unwrap()).await.unwrap();
    let buildkit = BuildKit::connect(docker.dialer(), docker.info().await.unwrap().api).await.unwrap();
    let mut parts = SessionParts::default();
    parts.directories.add("context", folder);
    parts.directories.add("dockerfile", folder);
    let (events, _receiver) = Events::channel();
    let session = Session::start(&buildkit, parts, &events).await.unwrap();
    let request = SolveRequest { entitlements: vec!["network.host".to_owned()], ..SolveRequest::default() };
    let (sender, receiver) = std::sync::mpsc::channel();
    let work = buildkit.build(&session, request, &events, |mut gateway| async move {
        let options = HashMap::from([("force-network-mode".to_owned(), "host".to_owned())]);
        sender.send(gateway.dockerfile(options).await?.definition().cloned().unwrap()).unwrap();
        Ok(Solved::default())
    });
    work.await.unwrap();
    Graph::new(receiver.recv().unwrap()).unwrap()
}

/// The layers of the built image, uncompressed.
fn built(engine: &Engine, machine: &Machine) -> Vec<Vec<u8>> {
    let (cli, name) = (part("HAKOBI_TEST_DOCKER_CLI"), unique("append"));
    let mut command = machine.command(&cli);
    Run::of(command.env("DOCKER_BUILDKIT", "1").args(["build", "--network", "host", "-t", &name, "."])).exits(0);
    let output = Command::new(&cli).args(["save", &name]).env("DOCKER_HOST", engine.host()).output().unwrap();
    engine.docker(&["rmi", &name]);
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(&output.stdout[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let (path, mut bytes) = (entry.path().unwrap().to_string_lossy().into_owned(), Vec::new());
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(path, bytes);
    }
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    let layers = manifest[0]["Layers"].as_array().unwrap().iter().map(|layer| {
        let bytes = &files[layer.as_str().unwrap()];
        if !bytes.starts_with(&[0x1f, 0x8b]) {
            return bytes.clone();
        }
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
        plain
    });
    layers.collect()
}

/// A source as the operations see it.
enum Behind {
    Context(Vec<Entry>),
    Made(AssembledLayer),
}

fn behind(graph: &Graph, folder: &Path, op: &Op, input: usize) -> Option<Behind> {
    let source = graph.op(&op.inputs.get(input)?.step)?;
    if let Some((_, selection)) = selection(source) {
        let mut entries = Vec::new();
        build_context::walk(folder, &selection, &mut |entry| {
            entries.push(entry);
            true
        })
        .unwrap();
        return Some(Behind::Context(entries));
    }
    let Some(pb::op::Op::File(_)) = &source.op.op else { return None };
    assemble_layer(&source.op, &PathIndex::default(), &|_| None).ok().map(Behind::Made)
}

fn engine_agrees(name: &'static str, lines: &[&str]) {
    let engine = Engine::lock(name);
    let machine = Machine::with(&engine.host());
    let folder = machine.folder();
    let base = format!("{}/base/busybox:latest", part("HAKOBI_TEST_REGISTRY_OPEN"));
    let plain: Vec<&str> = lines.iter().map(|line| line.trim_start_matches('?')).collect();
    let dockerfile = format!("FROM {base}\n{BELOW}\n{}\n", plain.join("\n")).replace("LONG", &"n".repeat(120));
    project(&folder, &dockerfile);
    backdate(&folder, 2020);
    let graph = tokio::runtime::Runtime::new().unwrap().block_on(compiled(&engine, &folder));
    let since = now();
    let layers = built(&engine, &machine);
    let chain = graph.chain_of(&graph.op(&graph.result().step).map(|_| graph.result().clone()).unwrap());
    let bases = layers.len() - chain.layers();
    let mut below =
        PathIndex::from_layers(&layers[..bases].iter().map(|tar| LayerIndex::from_tar(&tar[..]).unwrap()).collect::<Vec<_>>());
    let tree = build_context::hash(&folder, &context_selection()).unwrap();
    let content = |_: usize, path: &str| match tree.get(path).map(|node| node.kind.clone()) {
        Some(NodeKind::File(digest)) => Some(digest),
        _ => None,
    };
    let (mut wrong, mut unsure, mut agreed) = (Vec::new(), Vec::new(), 0);
    for (link, tar) in chain.links.iter().zip(&layers[bases..]) {
        let op = graph.op(&link.made_by).unwrap();
        let index = LayerIndex::from_tar(&tar[..]).unwrap();
        if let Some(pb::op::Op::File(_)) = &op.op.op {
            let sources: Vec<Option<Behind>> = (0..op.inputs.len()).map(|input| behind(&graph, &folder, op, input)).collect();
            let source = |input: usize| match sources.get(input)?.as_ref()? {
                Behind::Context(entries) => Some(Source::Files(Files { root: &folder, entries })),
                Behind::Made(laid) => Some(Source::Made(laid)),
            };
            match assemble_layer(&op.op, &below, &source) {
                Ok(laid) => {
                    agreed += 1;
                    wrong.extend(
                        compared(&laid, tar, &index, &below, &content, (since, name == D20))
                            .map(|what| format!("{}: {what}", op.name)),
                    );
                }
                Err(AssemblyDoubt::UnknownPaths(reason)) => unsure.push(format!("{}: {reason}", op.name)),
                Err(error) => wrong.push(format!("{}: {error}", op.name)),
            }
        }
        below.apply(&index);
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    let expected = lines.iter().filter(|line| line.starts_with('?')).count();
    assert_eq!(unsure.len(), expected, "{name}:\n{}", unsure.join("\n"));
    assert!(agreed > lines.len() / 2);
}

fn context_selection() -> build_context::Selection {
    build_context::Selection { exclude: vec!["ignored".to_owned()], ..build_context::Selection::default() }
}

/// In what the daemon's layer is another. From `since` on it is the time of the build; `loses`: the daemon gives that to directories
/// of the context too ([`support::plain::same_image`]).
fn compared(
    laid: &AssembledLayer,
    tar: &[u8],
    index: &LayerIndex,
    below: &PathIndex,
    content: &dyn Fn(usize, &str) -> Option<Digest>,
    (since, loses): (u64, bool),
) -> Option<String> {
    let theirs = Tree::from_tar(tar).unwrap();
    if let Some(what) = laid.differs(&theirs, content) {
        return Some(what);
    }
    let mut out = Vec::new();
    laid.write_tar(&mut out, 1_700_000_000, &mut |source, path, digest| assert_eq!(content(source, path).as_ref(), Some(digest)))
        .unwrap();
    if let Some(what) = laid.differs(&Tree::from_tar(&out[..]).unwrap(), content) {
        return Some(format!("what is written: {what}"));
    }
    // The times, and what the state is with either layer.
    let times = |tar: &[u8]| -> BTreeMap<String, u64> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().unwrap().map(|entry| entry.unwrap());
        let path = |entry: &tar::Entry<'_, _>| entry.path().unwrap().to_string_lossy().trim_end_matches('/').to_owned();
        entries.map(|entry| (path(&entry), entry.header().mtime().unwrap())).collect()
    };
    let theirs = times(tar);
    for (path, entry) in laid.entries().filter(|(_, entry)| entry.kind != AssembledKind::Whiteout) {
        let Some(theirs) = theirs.get(path).copied() else { continue };
        let same = match entry.modified {
            Some(ours) => ours == theirs || (loses && theirs >= since && ours % 60 == OF_DIRECTORIES),
            None => theirs >= since,
        };
        if !same {
            return Some(format!("{path}: the time {:?} here, {theirs} in the daemon's layer", entry.modified));
        }
    }
    let state = |layer: &LayerIndex| {
        let mut state = below.clone();
        state.apply(layer);
        let below = state.below("").map(|(path, met)| (path.to_owned(), met.kind.clone(), met.mode, met.owner, met.implied));
        below.collect::<Vec<_>>()
    };
    let (ours, theirs) = (state(&laid.index(0, content)), state(index));
    ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs).map(|pair| format!("the state after it: {pair:?}"))
}

#[test]
fn docker_20_overlay2() {
    engine_agrees(D20, LINES);
}

#[test]
fn docker_28_overlay2() {
    engine_agrees(D28, &[LINES, NEWER].concat());
}

#[test]
fn docker_28_containerd() {
    engine_agrees(C28, &[LINES, NEWER].concat());
}
