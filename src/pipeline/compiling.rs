//! The Dockerfile's graph: of the daemon's frontend, or as it is remembered where there is no daemon to ask.

use std::collections::{BTreeMap, HashMap};

use super::ahead::Ahead;
use super::build::Run;
use super::job::Job;
use super::planning::{Planned, Remembered};
use crate::build::{Compiled, Input};
use crate::domain::{Digest, ImageRef, StepKey};
use crate::engine::buildkit::{ExpectedFile, Session, SolveRequest, Solved};
use crate::engine::{Docker, EngineInfo};
use crate::error::{Error, Result};
use crate::graph::{Graph, settled};
use crate::hidden::Hidden;
use crate::plan::{CompiledRecord, KnownFacts, Syntax, compiled_key};
use crate::registry::{self, Registries};

/// Most steps of a compiled form that is remembered: it is walked from its end to its beginning.
const MOST_STEPS: usize = 2000;

/// What a Dockerfile's compiled form is remembered by.
pub(super) struct CompiledKey {
    key: StepKey,
    /// The image of the frontend, where the Dockerfile brings one along.
    frontend: Option<String>,
    /// The Dockerfile.
    text: Vec<u8>,
    /// The files that the key was made of, which the frontend is to be sent.
    files: Vec<ExpectedFile>,
}

impl CompiledKey {
    /// Of a build; nothing where what the frontend makes depends on more than can be seen from here.
    pub(super) fn of(input: &Input, options: &HashMap<String, String>, platform: &str, hidden: &Hidden) -> Option<Self> {
        // A host's address that only the daemon knows; a graph all of which is to run.
        let of_daemon = options.get("add-hosts").is_some_and(|hosts| hosts.contains("host-gateway"));
        if of_daemon || options.contains_key("no-cache") {
            return None;
        }
        // A digest of little more than a secret would let it be guessed.
        if options.values().any(|value| hidden.is_in(value.as_bytes())) {
            return None;
        }
        let files = input.frontend_files().ok()??;
        let text = files.first()?.content.clone()?;
        let frontend = match Syntax::of(&text, options.get("build-arg:BUILDKIT_SYNTAX").map(String::as_str)) {
            Syntax::Own => None,
            Syntax::Image(image) => Some(image),
            Syntax::Other => return None,
        };
        let expected = files.iter().map(|file| ExpectedFile {
            directory: file.directory.clone(),
            path: file.path.clone(),
            content: file.content.as_deref().map(Digest::of),
        });
        let expected = expected.collect();
        let files = files.iter().map(|file| (&*file.name, file.content.as_deref()));
        let options = options.iter().filter(|(name, _)| *name != "cache-imports").map(|(name, value)| (&**name, &**value));
        Some(Self { key: compiled_key(platform, files, options), frontend, text, files: expected })
    }

    /// The files that it was made of.
    pub(super) fn files(&self) -> &[ExpectedFile] {
        &self.files
    }

    /// Whether a word stands in the Dockerfile.
    fn says(&self, word: &str) -> bool {
        String::from_utf8_lossy(&self.text).contains(word)
    }

    /// Whether an image is named with its digest in the Dockerfile, which then holds whatever its tag stands for.
    fn pins(&self, reference: &ImageRef) -> bool {
        let Some(digest) = &reference.digest else { return false };
        let pinned = match &reference.tag {
            Some(tag) => format!(":{tag}@{digest}"),
            None => return true,
        };
        String::from_utf8_lossy(&self.text).contains(&pinned)
    }
}

/// A compiled Dockerfile as it is remembered.
pub(super) struct Recalled {
    pub(super) compiled: Compiled,
    pub(super) facts: KnownFacts,
    /// Whether a registry did not say that its images are those still.
    pub(super) by_record: bool,
}

/// A platform as a key has it, where none was asked for: this machine's.
pub(super) fn machine() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

impl Run<'_> {
    /// Has the Dockerfile compiled, without running anything. `None` where there is not one image to plan for.
    pub(super) async fn compile(&self, session: &Session, options: &HashMap<String, String>) -> Result<Option<Compiled>> {
        let mut attempt = 1;
        loop {
            let mut compiled = None;
            let (slot, given) = (&mut compiled, options.clone());
            let request = SolveRequest { entitlements: self.job.build.entitlements.clone(), ..SolveRequest::default() };
            let work = |mut gateway: crate::engine::buildkit::Gateway| async move {
                let solved: Solved = gateway.dockerfile(given).await?;
                let compiled = Compiled { engine: engine(&self.info), ..Compiled::of(&solved) };
                if solved.has_graphs() {
                    *slot = Some((solved.references.len() == 1).then_some(compiled));
                }
                // What is given back is built.
                Ok(Solved::default())
            };
            match self.buildkit.build(session, request, self.job.events, work).await {
                Ok(_) => return compiled.ok_or_else(|| Error::build("the frontend gave no graph")),
                Err(status) if self.job.tries_again(&mut attempt, &status).await => {}
                Err(status) => return Err(self.failure(&status, session, None).await),
            }
        }
    }

    /// Plans the build, with what is known of it already. `None` where there is not one image to plan for.
    pub(super) async fn planned(
        &self,
        session: &Session,
        options: &HashMap<String, String>,
        input: &Input,
        ahead: Ahead,
    ) -> Result<Option<Planned>> {
        let Some((kept, faults)) = self.job.kept() else { return Ok(None) };
        let (known, key) = match ahead {
            Ahead::Open(planned) if planned.is_of_engine(&self.info) => return Ok(Some(*planned)),
            Ahead::Open(planned) => (planned.facts, planned.compiled_by),
            Ahead::Nothing(key) => (KnownFacts::default(), key),
            Ahead::Done => return Ok(None),
        };
        let Some(compiled) = self.compile(session, options).await? else { return Ok(None) };
        let records = Remembered::of(kept, faults);
        let mut planned = self.job.plan(compiled, &input.directories, &records, known, Some(&self.docker)).await?;
        planned.is_new_form = key.is_some();
        planned.compiled_by = key;
        Ok(Some(planned))
    }
}

impl Planned {
    /// Whether it was made of the compiled form that this engine would give, were it not for a frontend that it would have to pull or
    /// a registry that does not answer.
    fn is_of_engine(&self, info: &EngineInfo) -> bool {
        let brought = self.compiled_by.as_ref().is_some_and(|key| key.frontend.is_some());
        (brought || self.recorded_bases.is_some()) && self.compiled.engine == engine(info)
    }
}

/// What a frontend's graph depends on besides the frontend: what the engine says it can do.
fn engine(info: &EngineInfo) -> String {
    format!("{} {:?}", info.version, info.store)
}

impl Job<'_> {
    /// A compiled Dockerfile as it is remembered, if all that it was made of is as it was, with the layers of its bases.
    pub(super) async fn recall(&self, key: &CompiledKey, records: &Remembered<'_>) -> Result<Option<Recalled>> {
        let Some(record) = records.one::<CompiledRecord>(&key.key).await? else { return Ok(None) };
        let definition = record.definition().and_then(|bytes| Graph::decoded(&bytes).ok());
        // What cannot be planned with is a miss.
        let usable = definition.filter(|graph| graph.def.len() <= MOST_STEPS && Graph::new(graph.clone()).is_ok());
        let Some(definition) = usable else {
            records.refuse(&key.key);
            return Ok(None);
        };
        let present = record.references.keys().map(|name| present(&self.registries, name));
        let mut silent = Vec::new();
        for (now, (name, then)) in futures::future::join_all(present).await.into_iter().zip(&record.references) {
            match now {
                Ok(now) if now.as_ref() == Some(then) => {}
                // A registry that does not answer says nothing of its tags.
                Err(error) if error.is_silence() => silent.push((name, then, error)),
                _ => return Ok(None),
            }
        }
        for (name, then, error) in &silent {
            if !self.build.recorded_bases {
                self.events.note(format!("{error}; with --recorded-bases {name} is taken to be what it was in the build before"));
                return Ok(None);
            }
            self.events.warning(format!("{name} is taken to be {then}, as in the build before (--recorded-bases): {error}"));
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

    /// Whether a daemon has an image of its own under a name that the graph takes from a registry: that one goes first there.
    pub(super) async fn daemon_differs(&self, docker: &Docker, planned: &Planned) -> bool {
        for op in planned.graph.below(planned.graph.result()) {
            let reference = op.image().and_then(|image| image.parse::<ImageRef>().ok());
            let Some((reference, Ok(layers))) = reference.zip(planned.facts.images.get(&op.digest)) else { continue };
            let name = ImageRef { digest: None, ..reference };
            match docker.image_layers(&name.to_string()).await {
                Ok(None) => {}
                Ok(Some(own)) if own == *layers => {}
                _ => return true,
            }
        }
        false
    }

    /// What is to be remembered of a compiled Dockerfile; `None` if its images cannot all be told by digests, or if it holds a value
    /// that is hidden.
    pub(super) async fn compiled_record(&self, key: &CompiledKey, planned: &Planned) -> Option<(StepKey, CompiledRecord)> {
        let definition = Graph::encoded(&planned.compiled.definition);
        // The record has no other place for the platform.
        if planned.compiled.platforms.is_some() {
            return None;
        }
        let hidden = self.events.hidden();
        if hidden.is_in(&definition) || hidden.is_in(&planned.compiled.config) {
            return None;
        }
        let mut record = CompiledRecord::new(&definition, planned.compiled.config.clone())?;
        record.engine.clone_from(&planned.compiled.engine);
        let mut references: BTreeMap<String, Digest> = BTreeMap::new();
        for op in planned.graph.below(planned.graph.result()).into_iter().filter(|op| op.inputs.is_empty()) {
            // What the frontend found out, and no one asks for again.
            if settled(op).is_some_and(|settled| !key.says(settled)) {
                return None;
            }
            let Some(image) = op.image() else { continue };
            let reference: ImageRef = image.parse().ok()?;
            let digest = reference.digest.clone()?;
            let Some(Ok(layers)) = planned.facts.images.get(&op.digest) else { return None };
            record.images.insert(op.digest.to_string(), layers.clone());
            if !key.pins(&reference) {
                references.insert(ImageRef { digest: None, ..reference }.to_string(), digest);
            }
        }
        if let Some(frontend) = &key.frontend {
            let reference: ImageRef = frontend.parse().ok()?;
            if reference.digest.is_none() {
                references.insert(reference.to_string(), present(&self.registries, frontend).await.ok()??);
            }
        }
        record.references = references;
        Some((key.key.clone(), record))
    }
}

/// What a name stands for in its registry now.
pub(super) async fn present(registries: &Registries, name: &str) -> registry::Result<Option<Digest>> {
    let Ok(reference) = name.parse::<ImageRef>() else { return Ok(None) };
    let client = registries.repository(&reference.repository);
    Ok(client.head_manifest(&reference.reference()).await?.map(|head| head.digest))
}
