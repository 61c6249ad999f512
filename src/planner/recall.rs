//! Recalls the compiled form of a Dockerfile from the cache, and plans builds with it without a daemon.

use std::collections::BTreeMap;

use crate::build::{Compiled, Input, frontend_options};
use crate::cache::record_reader::RecordReader;
use crate::domain::{Digest, ImageRef};
use crate::engine::{Docker, EngineInfo};
use crate::error::Result;
use crate::graph::{Graph, pinned_revision};
use crate::plan::{CompiledRecord, KnownFacts, RecordKey};
use crate::planner::build_plan::BuildPlan;
use crate::planner::compiled_key::{CompiledKey, machine};
use crate::planner::{lookup, plan};
use crate::registry::{self, Registries};
use crate::run::context::BuildContext;

/// Most steps of a compiled form that hakobi records, because it walks the graph from its end to its beginning.
pub const MOST_STEPS: usize = 2000;

/// A compiled Dockerfile from the cache.
pub struct Recalled {
    pub compiled: Compiled,
    pub facts: KnownFacts,
    /// Whether a registry did not confirm that the images are unchanged.
    pub by_record: bool,
}

/// How far a build came without a daemon.
pub enum DaemonlessPlan {
    /// The build is done.
    Done,
    /// The build is planned, and a step must run.
    Open(Box<BuildPlan>),
    /// There is no plan: the cache has no compiled form, or hakobi must not plan this build.
    Nothing(Option<CompiledKey>),
}

impl DaemonlessPlan {
    /// Returns the key of the compiled form, if hakobi may record that.
    pub fn key(&self) -> Option<&CompiledKey> {
        match self {
            Self::Open(plan) => plan.compiled_by.as_ref(),
            Self::Nothing(key) => key.as_ref(),
            Self::Done => None,
        }
    }
}

/// Plans with the compiled form from the cache, if the registries still have the same base images.
///
/// # Errors
/// If the cache fails and is required.
pub async fn remembered_plan(
    context: &BuildContext<'_>,
    input: &Input,
    records: &RecordReader<'_>,
    daemon: Option<(&Docker, &EngineInfo)>,
) -> Result<DaemonlessPlan> {
    let platform = daemon.map_or_else(machine, |(_, info)| info.platform.clone());
    let options = frontend_options(context.build, input, &[]);
    if context.build.platforms.len() > 1 {
        return Ok(DaemonlessPlan::Nothing(None));
    }
    let Some(key) = CompiledKey::new(input, &options, &platform, context.events.hidden()) else {
        return Ok(DaemonlessPlan::Nothing(None));
    };
    let Some(recalled) = recall(context, &key, records).await? else { return Ok(DaemonlessPlan::Nothing(Some(key))) };
    let mut plan = plan::plan(context, recalled.compiled, &input.directories, records, recalled.facts, None).await?;
    if recalled.by_record {
        lookup::take_recorded_bases(&mut plan, records).await?;
    }
    if let Some((docker, _)) = daemon
        && daemon_differs(context, docker, &plan).await
    {
        return Ok(DaemonlessPlan::Nothing(Some(key)));
    }
    plan.compiled_by = Some(key);
    Ok(DaemonlessPlan::Open(Box::new(plan)))
}

/// Recalls a compiled Dockerfile with the layers of its base images. Returns `None` if there is no record, or one of the images has
/// changed.
///
/// # Errors
/// If the cache fails and is required.
pub async fn recall(context: &BuildContext<'_>, key: &CompiledKey, records: &RecordReader<'_>) -> Result<Option<Recalled>> {
    let Some(record) = records.one(&key.key).await? else {
        tracing::info!(key = %key.key, "the cache has no compiled form of the Dockerfile");
        return Ok(None);
    };
    let definition = record.definition().and_then(|bytes| Graph::decoded(&bytes).ok());
    // A compiled form that hakobi cannot plan with counts as a miss.
    let usable = definition.filter(|graph| graph.def.len() <= MOST_STEPS && Graph::new(graph.clone()).is_ok());
    let Some(definition) = usable else {
        records.refuse(&key.key);
        return Ok(None);
    };
    let present = record.references.keys().map(|name| present(&context.registries, name));
    let mut silent = Vec::new();
    for (now, (name, then)) in futures::future::join_all(present).await.into_iter().zip(&record.references) {
        match now {
            Ok(now) if now.as_ref() == Some(then) => {}
            // A registry that does not answer does not say that a tag has moved.
            Err(error) if error.is_silence() => silent.push((name, then, error)),
            _ => {
                tracing::info!(name, "the compiled Dockerfile is not used again: an image changed");
                return Ok(None);
            }
        }
    }
    for (name, then, error) in &silent {
        if !context.build.recorded_bases {
            context
                .events
                .note(format!("{error}; with --recorded-bases, hakobi would use the digest of {name} from the last build"));
            return Ok(None);
        }
        context.events.warning(format!("using {then} for {name}, as in the last build (--recorded-bases): {error}"));
    }
    let mut facts = KnownFacts::default();
    for (step, layers) in &record.images {
        if let Ok(step) = step.parse::<Digest>() {
            facts.images.insert(step, Ok(layers.clone()));
        }
    }
    let compiled = Compiled { definition, config: record.config().to_vec(), platforms: None, engine: record.engine.clone() };
    Ok(Some(Recalled { compiled, facts, by_record: !silent.is_empty() }))
}

/// Returns whether the daemon has another image under a name that the graph takes from a registry: the daemon would prefer its own.
pub async fn daemon_differs(_context: &BuildContext<'_>, docker: &Docker, plan: &BuildPlan) -> bool {
    for op in plan.graph.below(plan.graph.result()) {
        let reference = op.image().and_then(|image| image.parse::<ImageRef>().ok());
        let Some((reference, Ok(layers))) = reference.zip(plan.facts.images.get(&op.digest)) else { continue };
        let name = ImageRef { digest: None, ..reference };
        match docker.image_layers(&name.to_string()).await {
            Ok(None) => {}
            Ok(Some(own)) if own == *layers => {}
            _ => return true,
        }
    }
    false
}

/// Returns the record of a compiled Dockerfile. Returns `None` if an image has no known digest, or the record would contain a
/// hidden value.
pub async fn compiled_record(
    context: &BuildContext<'_>,
    key: &CompiledKey,
    plan: &BuildPlan,
) -> Option<(RecordKey<CompiledRecord>, CompiledRecord)> {
    let definition = Graph::encoded(&plan.compiled.definition);
    // The record cannot store the platform elsewhere.
    if plan.compiled.platforms.is_some() {
        return None;
    }
    let hidden = context.events.hidden();
    if hidden.is_in(&definition) || hidden.is_in(&plan.compiled.config) {
        return None;
    }
    let mut record = CompiledRecord::new(&definition, plan.compiled.config.clone())?;
    record.engine.clone_from(&plan.compiled.engine);
    let mut references: BTreeMap<String, Digest> = BTreeMap::new();
    for op in plan.graph.below(plan.graph.result()).into_iter().filter(|op| op.inputs.is_empty()) {
        // The frontend resolved this revision, and a recalled build would not look it up again.
        if pinned_revision(op).is_some_and(|pinned_revision| !key.says(pinned_revision)) {
            return None;
        }
        let Some(image) = op.image() else { continue };
        let reference: ImageRef = image.parse().ok()?;
        let digest = reference.digest.clone()?;
        let Some(Ok(layers)) = plan.facts.images.get(&op.digest) else { return None };
        record.images.insert(op.digest.to_string(), layers.clone());
        if !key.pins(&reference) {
            references.insert(ImageRef { digest: None, ..reference }.to_string(), digest);
        }
    }
    if let Some(frontend) = &key.frontend {
        let reference: ImageRef = frontend.parse().ok()?;
        if reference.digest.is_none() {
            references.insert(reference.to_string(), present(&context.registries, frontend).await.ok()??);
        }
    }
    record.references = references;
    Some((key.key.clone(), record))
}

/// Returns the digest that a name has in its registry now, or `None` if the registry has no such image.
///
/// # Errors
/// If the registry does not answer.
pub async fn present(registries: &Registries, name: &str) -> registry::Result<Option<Digest>> {
    let Ok(reference) = name.parse::<ImageRef>() else { return Ok(None) };
    let client = registries.repository(&reference.repository);
    Ok(client.head_manifest(&reference.reference()).await?.map(|head| head.digest))
}
