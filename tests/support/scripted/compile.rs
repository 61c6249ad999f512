//! The scripted daemon's frontend: compiles a Dockerfile's stages to BuildKit's graph. The names, the source map and the image
//! config are like those of the real frontend (`dockerfile2llb`).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard_buildkit_proto::pb;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::Status;

use super::dockerfile::{Instruction, Line, Stage, parse};
use super::files::digest;
use super::layers::{Pulled, Result, pull};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The result of compiling a Dockerfile.
pub struct Compiled {
    pub definition: pb::Definition,
    pub config: Vec<u8>,
}

/// A stage's last state and its image config.
#[derive(Clone)]
struct Built {
    /// `None` for `FROM scratch`, before a step adds files.
    state: Option<pb::Input>,
    config: Value,
}

struct Frontend<'a> {
    stages: &'a [Stage],
    images: HashMap<String, Pulled>,
    definition: pb::Definition,
    done: HashMap<usize, Built>,
    context: pb::Input,
    platform: pb::Platform,
}

/// Compiles a Dockerfile up to a stage, or its last one. It looks up base images in their registries.
pub async fn compile(client: &reqwest::Client, text: &str, target: Option<&str>, session: &str) -> Result<Compiled> {
    let failed = |text: String| Status::unknown(format!("failed to solve: {text}"));
    let stages = parse(text).map_err(failed)?;
    let last = match target {
        Some(name) => {
            position(&stages, stages.len(), name).ok_or_else(|| failed(format!("target stage \"{name}\" could not be found")))?
        }
        None => stages.len() - 1,
    };
    let used = reachable(&stages, last);
    let mut images = HashMap::new();
    for image in used.iter().flat_map(|place| images_of(&stages, *place)).collect::<BTreeSet<String>>() {
        let pulled = pull(client, &image)
            .await
            .map_err(|error| failed(format!("{image}: failed to resolve source metadata for {image}: {}", error.message())))?;
        images.insert(image, pulled);
    }
    let platform =
        pb::Platform { architecture: super::architecture().to_owned(), os: "linux".to_owned(), ..pb::Platform::default() };
    let info = pb::SourceInfo {
        filename: "Dockerfile".to_owned(),
        data: text.as_bytes().to_vec(),
        language: "Dockerfile".to_owned(),
        ..pb::SourceInfo::default()
    };
    let source = pb::Source { infos: vec![info], ..pb::Source::default() };
    let mut frontend = Frontend {
        stages: &stages,
        images,
        definition: pb::Definition { source: Some(source), ..pb::Definition::default() },
        done: HashMap::new(),
        context: pb::Input::default(),
        platform,
    };
    frontend.context = frontend.context(&used, session);
    for place in used {
        let built = frontend.stage(place)?;
        frontend.done.insert(place, built);
    }
    let Built { state, config } = frontend.done.remove(&last).ok_or_else(|| Status::internal("no stage"))?;
    let mut definition = frontend.definition;
    match state {
        Some(state) => definition.def.push(pb::Op { inputs: vec![state], ..pb::Op::default() }.encode_to_vec()),
        None => definition = pb::Definition::default(),
    }
    Ok(Compiled { definition: pruned(definition), config: config.to_string().into_bytes() })
}

/// Returns the last stage with this name before a position.
fn position(stages: &[Stage], before: usize, name: &str) -> Option<usize> {
    let named = stages[..before].iter().rposition(|stage| stage.name.as_deref() == Some(name));
    named.or_else(|| name.parse().ok().filter(|place| *place < before))
}

/// Returns the stages that one stage needs, including itself, in their order.
fn reachable(stages: &[Stage], last: usize) -> BTreeSet<usize> {
    let mut all = BTreeSet::from([last]);
    let mut open = vec![last];
    while let Some(place) = open.pop() {
        for name in names_of(&stages[place]) {
            if let Some(other) = position(stages, place, &name).filter(|other| all.insert(*other)) {
                open.push(other);
            }
        }
    }
    all
}

/// Returns the base of a stage, and the sources of its `COPY --from`.
fn names_of(stage: &Stage) -> Vec<String> {
    let from = stage.lines.iter().filter_map(|line| match &line.instruction {
        Instruction::Copy { from, .. } => from.clone(),
        _ => None,
    });
    std::iter::once(stage.base.clone()).chain(from).collect()
}

fn images_of(stages: &[Stage], place: usize) -> Vec<String> {
    let names = names_of(&stages[place]).into_iter();
    names.filter(|name| name != "scratch" && position(stages, place, name).is_none()).collect()
}

/// Removes the steps that do not lead to the result.
fn pruned(mut definition: pb::Definition) -> pb::Definition {
    let mut needed: BTreeSet<String> = BTreeSet::new();
    let mut keep = Vec::new();
    for (place, bytes) in definition.def.iter().enumerate().rev() {
        if place + 1 == definition.def.len() || needed.contains(&digest(bytes)) {
            let op = pb::Op::decode(&bytes[..]).unwrap();
            needed.extend(op.inputs.into_iter().map(|input| input.digest));
            keep.push(bytes.clone());
        }
    }
    keep.reverse();
    definition.def = keep;
    definition
}

impl Frontend<'_> {
    /// Adds a step with its name and, if it is in the Dockerfile, its line. It encodes the op like Go: the `oneof` field comes last.
    fn step(&mut self, op: pb::Op, name: &str, line: Option<i32>) -> pb::Input {
        let mut bytes = pb::Op { op: None, ..op.clone() }.encode_to_vec();
        bytes.extend(pb::Op { op: op.op, ..pb::Op::default() }.encode_to_vec());
        let step = digest(&bytes);
        if !self.definition.def.contains(&bytes) {
            self.definition.def.push(bytes);
        }
        let description = BTreeMap::from([("llb.customname".to_owned(), name.to_owned())]);
        self.definition.metadata.entry(step.clone()).or_insert(pb::OpMetadata { description, ..pb::OpMetadata::default() });
        if let Some((line, source)) = line.zip(self.definition.source.as_mut()) {
            let position = Some(pb::Position { line, character: 0 });
            let location = pb::Location { source_index: 0, ranges: vec![pb::Range { start: position, end: position }] };
            source.locations.insert(step.clone(), pb::Locations { locations: vec![location] });
        }
        pb::Input { digest: step, index: 0 }
    }

    /// Adds the build context, with the paths that the stages copy.
    fn context(&mut self, used: &BTreeSet<usize>, session: &str) -> pb::Input {
        let lines = used.iter().flat_map(|place| &self.stages[*place].lines);
        let paths: BTreeSet<String> = lines
            .filter_map(|line| match &line.instruction {
                Instruction::Copy { from: None, sources, .. } => Some(sources.iter().map(|source| trimmed(source))),
                _ => None,
            })
            .flatten()
            .collect();
        let attributes = [("local.session", session), ("local.sharedkeyhint", "context")];
        let mut attrs: BTreeMap<_, _> = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        // A copy of the whole context needs no list of paths.
        if !paths.contains("") {
            attrs.insert("local.followpaths".to_owned(), json!(paths).to_string());
        }
        let source = pb::op::Op::Source(pb::SourceOp { identifier: "local://context".to_owned(), attrs });
        let op = pb::Op { op: Some(source), ..pb::Op::default() };
        self.step(op, "[internal] load build context", None)
    }

    fn image(&mut self, name: &str, shown: &str, line: Option<i32>) -> Result<(pb::Input, Value)> {
        let image = self.images.get(name).ok_or_else(|| Status::internal("an image that was not looked up"))?;
        let config: Value = serde_json::from_slice(&image.config).map_err(|error| Status::unknown(error.to_string()))?;
        let source = pb::SourceOp { identifier: format!("docker-image://{name}@{}", image.digest), attrs: BTreeMap::new() };
        let op = pb::Op { op: Some(pb::op::Op::Source(source)), platform: Some(self.platform.clone()), ..pb::Op::default() };
        Ok((self.step(op, shown, line), config))
    }

    fn stage(&mut self, place: usize) -> Result<Built> {
        let stages = self.stages;
        let stage = &stages[place];
        let layers = stage.lines.iter().filter(|line| line.instruction.makes_layer()).count();
        let own = match &stage.name {
            Some(name) => format!("{name} "),
            None if stages.len() > 1 => format!("stage-{place} "),
            None => String::new(),
        };
        let total = layers + usize::from(stage.base != "scratch");
        let mut number = usize::from(stage.base != "scratch");
        let mut built = match position(stages, place, &stage.base).and_then(|other| self.done.get(&other)) {
            Some(other) => other.clone(),
            None if stage.base == "scratch" => Built { state: None, config: empty_config() },
            None => {
                let shown = format!("[{own}{number}/{total}] FROM {}", stage.base);
                let (state, config) = self.image(&stage.base, &shown, Some(stage.number))?;
                Built { state: Some(state), config }
            }
        };
        for line in &stage.lines {
            number += usize::from(line.instruction.makes_layer());
            let shown = format!("[{own}{number}/{total}] {}", line.text);
            self.line(place, line, &shown, &mut built)?;
        }
        Ok(built)
    }

    fn line(&mut self, place: usize, line: &Line, shown: &str, built: &mut Built) -> Result<()> {
        let config = &mut built.config["config"];
        let mut created_by = format!("{} # buildkit", line.text);
        let operation = match &line.instruction {
            Instruction::Run(command) => {
                let environment = config["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let meta = pb::Meta {
                    args: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
                    env: environment.map(str::to_owned).collect(),
                    cwd: "/".to_owned(),
                    ..pb::Meta::default()
                };
                created_by = format!("RUN /bin/sh -c {command} # buildkit");
                let root = pb::Mount { input: 0, dest: "/".to_owned(), output: 0, ..pb::Mount::default() };
                Some((
                    built.state.iter().cloned().collect(),
                    pb::op::Op::Exec(pb::ExecOp { meta: Some(meta), mounts: vec![root], ..pb::ExecOp::default() }),
                ))
            }
            Instruction::Copy { from, mode, sources, target } => {
                let taken = match from {
                    None => Some(self.context.clone()),
                    Some(name) => match position(self.stages, place, name).and_then(|other| self.done.get(&other)) {
                        Some(other) => other.state.clone(),
                        None => Some(self.image(name, &format!("FROM {name}"), Some(line.number))?.0),
                    },
                };
                let taken = taken.ok_or_else(|| Status::unknown("a copy out of nothing"))?;
                Some(copied(built.state.as_ref(), taken, *mode, sources, target))
            }
            Instruction::Env(name, value) => {
                let all = config["Env"].as_array().cloned().unwrap_or_default();
                let own = format!("{name}=");
                let mut all: Vec<Value> =
                    all.into_iter().filter(|pair| !pair.as_str().is_some_and(|pair| pair.starts_with(&own))).collect();
                all.push(json!(format!("{own}{value}")));
                config["Env"] = Value::Array(all);
                None
            }
            Instruction::Label(name, value) => {
                config["Labels"][name] = json!(value);
                None
            }
            Instruction::Cmd(json) => {
                config["Cmd"] = serde_json::from_str(json).map_err(|error| Status::unknown(error.to_string()))?;
                None
            }
        };
        let mut entry = json!({ "created_by": created_by, "comment": "buildkit.dockerfile.v0" });
        if let Some((inputs, operation)) = operation {
            let op = pb::Op { inputs, op: Some(operation), platform: Some(self.platform.clone()), ..pb::Op::default() };
            built.state = Some(self.step(op, shown, Some(line.number)));
        } else {
            entry["empty_layer"] = json!(true);
            entry["created_by"] = json!(line.text);
        }
        if let Some(history) = built.config["history"].as_array_mut() {
            history.push(entry);
        }
        Ok(())
    }
}

fn trimmed(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_matches('/');
    if path == "." { String::new() } else { path.to_owned() }
}

/// Returns `COPY` as a file operation, with one action for each source.
fn copied(
    base: Option<&pb::Input>,
    taken: pb::Input,
    mode: i32,
    sources: &[String],
    target: &str,
) -> (Vec<pb::Input>, pb::op::Op) {
    let inputs: Vec<pb::Input> = base.into_iter().cloned().chain([taken]).collect();
    let (below, from) = if base.is_some() { (0, 1) } else { (-1, 0) };
    let count = i64::try_from(inputs.len()).unwrap();
    let actions = sources.iter().zip(0_i64..).map(|(source, place)| {
        let copy = pb::FileActionCopy {
            src: format!("/{}", trimmed(source)),
            dest: if target.starts_with('/') { target.to_owned() } else { format!("/{target}") },
            mode,
            follow_symlink: true,
            dir_copy_contents: true,
            create_dest_path: true,
            allow_wildcard: true,
            allow_empty_wildcard: true,
            timestamp: -1,
            ..pb::FileActionCopy::default()
        };
        let is_last = usize::try_from(place + 1) == Ok(sources.len());
        pb::FileAction {
            input: if place == 0 { below } else { count + place - 1 },
            secondary_input: from,
            output: if is_last { 0 } else { -1 },
            action: Some(pb::file_action::Action::Copy(copy)),
        }
    });
    (inputs.clone(), pb::op::Op::File(pb::FileOp { actions: actions.collect() }))
}

fn empty_config() -> Value {
    json!({
        "architecture": super::architecture(), "os": "linux", "config": { "Env": [PATH], "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": null }, "history": [],
    })
}
