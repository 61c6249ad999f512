//! The scripted daemon's solver: runs a graph step by step, with a cache of the resulting states.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1 as api;
use bollard_buildkit_proto::pb;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use super::faults::{Faults, Point};
use super::files::{Files, digest};
use super::layers::{self, Layer, Result, pull};
use super::session::Wanted;
use super::{command, copy};

/// The source of local directories.
#[tonic::async_trait]
pub trait Locals: Send + Sync {
    async fn files(&self, wanted: &Wanted) -> Result<Files>;
}

/// The result of a step.
#[derive(Clone)]
pub enum State {
    /// The layers, from the base up.
    Layers(Vec<Layer>),
    /// A directory of the client.
    Local(Files),
}

/// A step's key in the cache, and its state.
type Keyed = (String, State);

/// The solver of a daemon.
pub struct Solver {
    pub client: reqwest::Client,
    cache: Mutex<HashMap<String, State>>,
    pub faults: Faults,
}

impl Default for Solver {
    fn default() -> Self {
        Self { client: layers::client(), cache: Mutex::default(), faults: Faults::default() }
    }
}

/// Returns the current time, in seconds of the Unix epoch.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

fn timestamp() -> Option<Timestamp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Some(Timestamp { seconds: now.as_secs().cast_signed(), nanos: now.subsec_nanos().cast_signed() })
}

impl Solver {
    /// Removes all states from the cache.
    pub fn wipe(&self) {
        self.cache.lock().unwrap().clear();
    }

    /// Runs a graph, and returns the layers of its result. It calls `told` for each step.
    pub async fn solve(
        &self,
        definition: &pb::Definition,
        locals: &dyn Locals,
        told: &(dyn Fn(api::Vertex) + Sync),
    ) -> Result<Vec<Layer>> {
        let mut done: HashMap<String, Keyed> = HashMap::new();
        let mut result = None;
        for bytes in &definition.def {
            let op = pb::Op::decode(&bytes[..]).map_err(|error| Status::invalid_argument(error.to_string()))?;
            let inputs: Option<Vec<&Keyed>> = op.inputs.iter().map(|input| done.get(&input.digest)).collect();
            let inputs = inputs.ok_or_else(|| Status::invalid_argument("a step needs one that is not there"))?;
            if op.op.is_none() {
                result = inputs.first().map(|(_, state)| state.clone());
                break;
            }
            let step = digest(bytes);
            let metadata = definition.metadata.get(&step).cloned().unwrap_or_default();
            let name = metadata.description.get("llb.customname").cloned().unwrap_or_default();
            let mut vertex = api::Vertex {
                digest: step.clone(),
                inputs: op.inputs.iter().map(|input| input.digest.clone()).collect(),
                name,
                started: timestamp(),
                ..api::Vertex::default()
            };
            told(vertex.clone());
            let made = self.step(&op, &inputs, metadata.ignore_cache, &vertex.name, locals).await;
            vertex.completed = timestamp();
            match made {
                Ok((keyed, cached)) => {
                    vertex.cached = cached;
                    told(vertex);
                    done.insert(step, keyed);
                }
                Err(error) => {
                    vertex.error = error.message().to_owned();
                    told(vertex);
                    return Err(Status::new(error.code(), format!("failed to solve: {}", error.message())));
                }
            }
        }
        match result {
            Some(State::Layers(layers)) => Ok(layers),
            None => Ok(Vec::new()),
            Some(State::Local(_)) => Err(Status::unimplemented("the model has no images of directories")),
        }
    }

    async fn step(&self, op: &pb::Op, inputs: &[&Keyed], again: bool, name: &str, locals: &dyn Locals) -> Result<(Keyed, bool)> {
        self.faults.pass(Point::Step, name).await?;
        match &op.op {
            Some(pb::op::Op::Source(source)) => self.source(source, locals).await.map(|keyed| (keyed, false)),
            Some(pb::op::Op::File(file)) => {
                let mut all = Vec::new();
                for (_, state) in inputs {
                    all.push(self.files(state).await?);
                }
                let mut hasher = Sha256::new();
                for (place, action) in (0_i64..).zip(&file.actions) {
                    hasher.update(format!("{place} {} {} {}\n", action.input, action.secondary_input, action.output));
                    hasher.update(action.encode_to_vec());
                    // The key has the content of the copied files, but for the state below only its key.
                    if let (Some(pb::file_action::Action::Copy(copied)), Some(from)) =
                        (&action.action, at(&all, action.secondary_input))
                    {
                        hasher.update(Files(copy::selected(copied, from)?.into_iter().collect()).digest());
                    }
                    hasher.update(at(inputs, action.input).map_or("nothing", |(key, _)| key));
                }
                let key = format!("file {:x}", hasher.finalize());
                let below = file.actions.first().and_then(|action| at(inputs, action.input)).map(|(_, state)| state);
                self.made(key, again, below, || copy::run(file, &all, now())).await
            }
            Some(pb::op::Op::Exec(exec)) => {
                let meta = exec.meta.clone().unwrap_or_default();
                let root = exec.mounts.iter().find(|mount| mount.dest == "/").map_or(-1, |mount| mount.input);
                let below = at(inputs, root);
                let key = format!("exec {} {}", digest(&meta.encode_to_vec()), below.map_or("nothing", |(key, _)| key));
                let state = below.map(|(_, state)| state);
                let mut files = match state {
                    Some(state) => self.files(state).await?,
                    None => Files::default(),
                };
                let run = || {
                    let line = meta.args.get(2).cloned().unwrap_or_default();
                    command::run(&line, &meta.env, &mut files, now()).map_err(Status::unknown)?;
                    Ok(files)
                };
                self.made(key, again, state, run).await
            }
            _ => Err(Status::unimplemented("the model has no such step")),
        }
    }

    /// Returns a state from the cache, or makes a new one: a layer on the state below.
    async fn made(
        &self,
        key: String,
        again: bool,
        below: Option<&State>,
        make: impl FnOnce() -> Result<Files>,
    ) -> Result<(Keyed, bool)> {
        let known = self.cache.lock().unwrap().get(&key).filter(|_| !again).cloned();
        if let Some(known) = known {
            return Ok(((key, known), true));
        }
        let mut layers = match below {
            Some(State::Layers(layers)) => layers.clone(),
            _ => Vec::new(),
        };
        let before = layers::files(&self.client, &layers).await?;
        layers.push(Layer::made(&make()?.layer_on(&before)));
        let state = State::Layers(layers);
        self.cache.lock().unwrap().insert(key.clone(), state.clone());
        Ok(((key, state), false))
    }

    async fn source(&self, source: &pb::SourceOp, locals: &dyn Locals) -> Result<Keyed> {
        if let Some(name) = source.identifier.strip_prefix("docker-image://") {
            let image = pull(&self.client, name).await?;
            let chain: Vec<&str> = image.layers.iter().map(Layer::diff_id).collect();
            return Ok((format!("image {}", chain.join(" ")), State::Layers(image.layers)));
        }
        let Some(name) = source.identifier.strip_prefix("local://") else {
            return Err(Status::unimplemented(format!("the model has no source {}", source.identifier)));
        };
        let list = |key: &str| source.attrs.get(key).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        let wanted = Wanted { name: name.to_owned(), follow: list("local.followpaths"), include: list("local.includepattern") };
        let files = locals.files(&wanted).await?;
        Ok((format!("local {}", files.digest()), State::Local(files)))
    }

    /// Returns the files of a state. It downloads missing layers.
    async fn files(&self, state: &State) -> Result<Files> {
        match state {
            State::Layers(layers) => layers::files(&self.client, layers).await,
            State::Local(files) => Ok(files.clone()),
        }
    }
}

fn at<T>(all: &[T], place: i64) -> Option<&T> {
    usize::try_from(place).ok().and_then(|place| all.get(place))
}
