//! Seeds of build graphs.

use std::collections::{BTreeMap, HashMap};

use bollard_buildkit_proto::pb;
use hakobi::domain::Digest;
use prost::Message as _;

use super::{Seed, seed};

/// A definition that grows.
#[derive(Default)]
struct Graph(Vec<Vec<u8>>);

impl Graph {
    fn on(&mut self, inputs: &[&str], op: pb::op::Op) -> String {
        let inputs = inputs.iter().map(|digest| pb::Input { digest: (*digest).to_owned(), index: 0 }).collect();
        let bytes = pb::Op { inputs, op: Some(op), ..pb::Op::default() }.encode_to_vec();
        let digest = Digest::hash(&bytes).to_string();
        self.0.push(bytes);
        digest
    }

    fn source(&mut self, identifier: &str, attributes: &[(&str, &str)]) -> String {
        let attrs = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>();
        self.on(&[], pb::op::Op::Source(pb::SourceOp { identifier: identifier.to_owned(), attrs }))
    }

    fn command(&mut self, on: &str, command: &str, mounts: &[pb::Mount]) -> String {
        let args = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
        let env = vec!["PATH=/bin".to_owned(), "TOKEN=x".to_owned()];
        let root = pb::Mount { dest: "/".to_owned(), ..pb::Mount::default() };
        let meta = pb::Meta { args, env, cwd: "/".to_owned(), ..pb::Meta::default() };
        let mounts = [&[root], mounts].concat();
        self.on(&[on], pb::op::Op::Exec(pb::ExecOp { meta: Some(meta), mounts, ..pb::ExecOp::default() }))
    }

    fn copy(&mut self, on: &str, from: &str, path: &str) -> String {
        let user = pb::user_opt::User::ByName(pb::NamedUserOpt { name: "app".to_owned(), input: 0 });
        let owner = pb::ChownOpt { user: Some(pb::UserOpt { user: Some(user) }), group: None };
        let copy = pb::FileActionCopy {
            src: path.to_owned(),
            dest: "/copied/".to_owned(),
            mode: -1,
            timestamp: -1,
            allow_wildcard: true,
            owner: Some(owner),
            ..Default::default()
        };
        let action = Some(pb::file_action::Action::Copy(copy));
        let action = pb::FileAction { input: 0, secondary_input: 1, output: 0, action };
        self.on(&[on, from], pb::op::Op::File(pb::FileOp { actions: vec![action] }))
    }

    /// Returns the bytes of the definition whose result is this step.
    fn finish(mut self, result: &str, name: &str) -> Vec<u8> {
        let end = pb::Input { digest: result.to_owned(), index: 0 };
        self.0.push(pb::Op { inputs: vec![end], ..pb::Op::default() }.encode_to_vec());
        let described = pb::OpMetadata {
            description: BTreeMap::from([("llb.customname".to_owned(), name.to_owned())]).into_iter().collect(),
            ..Default::default()
        };
        let metadata = HashMap::from([(result.to_owned(), described)]).into_iter().collect();
        let position = |line| Some(pb::Position { line, character: 0 });
        let range = pb::Range { start: position(2), end: position(i32::MAX) };
        let location = pb::Location { source_index: 0, ranges: vec![range] };
        let info = pb::SourceInfo { filename: "Dockerfile".to_owned(), data: b"FROM a\nRUN b\n".to_vec(), ..Default::default() };
        let locations = HashMap::from([(result.to_owned(), pb::Locations { locations: vec![location] })]).into_iter().collect();
        let source = Some(pb::Source { locations, infos: vec![info] });
        pb::Definition { def: self.0, metadata, source }.encode_to_vec()
    }
}

pub fn seeds() -> Vec<Seed> {
    let mut whole = Graph::default();
    let base = whole.source("docker-image://docker.io/library/busybox:latest", &[]);
    let context =
        whole.source("local://context", &[("local.includepattern", "[\"a\",\"**/b\"]"), ("local.followpaths", "[\"a\"]")]);
    let file = whole.source("https://example.invalid/file", &[("http.filename", "x")]);
    let git = whole.source("git://example.invalid/app.git#main:sub", &[("git.fullurl", "https://example.invalid/app.git")]);
    let options = pb::CacheOpt { id: "name/space".to_owned(), sharing: 0 };
    let cache = pb::Mount {
        input: -1,
        dest: "/cache".to_owned(),
        output: -1,
        mount_type: pb::MountType::Cache as i32,
        cache_opt: Some(options),
        ..Default::default()
    };
    let stage = whole.command(&base, "make", &[cache]);
    let copied = whole.copy(&stage, &context, "/src/*.rs");
    let added = whole.copy(&copied, &file, "/x");
    let cloned = whole.copy(&added, &git, "/");
    let crossed = whole.copy(&base, &cloned, "/out/../app");
    let whole = whole.finish(&crossed, "[stage-1 2/5] COPY --from=build /app /");

    let mut merged = Graph::default();
    let base = merged.source("docker-image://docker.io/library/busybox:latest", &[]);
    let mut state = merged.command(&base, "true", &[]);
    // Whoever follows both inputs of each has no end.
    for _ in 0..40 {
        let input = |input| pb::MergeInput { input };
        state = merged.on(&[&state, &state], pb::op::Op::Merge(pb::MergeOp { inputs: vec![input(0), input(1)] }));
    }
    let merged = merged.finish(&state, "COPY --link a b");

    let mut copied = Graph::default();
    let mut state = copied.source("docker-image://docker.io/library/busybox:latest", &[]);
    for _ in 0..40 {
        state = copied.copy(&state, &state, "/");
    }
    let state = copied.command(&state, "true", &[]);
    let copied = copied.finish(&state, "RUN true");

    let mut lost = Graph::default();
    let base = lost.source("local://", &[("local.includepattern", "{")]);
    let lost_input = pb::Mount { input: i64::MAX, dest: "..".to_owned(), selector: "../..".to_owned(), ..Default::default() };
    let state = lost.command(&base, "", &[lost_input]);
    let lost = lost.finish(&state, "[");

    let mut deep = Graph::default();
    let mut state = deep.source("docker-image://scratch", &[]);
    for _ in 0..100 {
        state = deep.command(&state, "", &[]);
    }
    let deep = deep.finish(&state, "RUN");
    vec![
        seed("definition", "whole", whole),
        seed("definition", "merges", merged),
        seed("definition", "copies", copied),
        seed("definition", "lost-inputs", lost),
        seed("definition", "deep", deep),
        seed("definition", "empty", ""),
    ]
}
