//! The run report (`--report`), schema 1: a contract, so every key is there in every report.

use std::path::Path;

use serde::Serialize;

use super::file;
use crate::error::{Error, Kind, Result};
use crate::hidden::Hidden;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All that was asked for is done.
    Success,
    /// Something failed. What a report is until someone says otherwise.
    #[default]
    Failure,
    /// Nothing was done, and rightly so (`--if-tag-exists skip`).
    Skipped,
}

/// What a run cost, from the least to the most: the coldest of several is the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// No layer moved.
    Unchanged,
    /// New layers were put on top; nothing ran.
    Append,
    /// Some steps ran.
    Partial,
    /// All steps ran.
    #[default]
    Cold,
}

impl Tier {
    /// As the report has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Append => "append",
            Self::Partial => "partial",
            Self::Cold => "cold",
        }
    }
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepStatus {
    /// Its result was there.
    Hit,
    /// It had to run.
    #[default]
    Miss,
    /// No one needed it.
    Skipped,
    /// It runs every time.
    Uncacheable,
}

/// Who decided what is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StrategyUsed {
    /// hakobi's plan.
    #[default]
    Auto,
    /// BuildKit.
    Daemon,
}

/// Where the daemon keeps images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageStore {
    /// Docker's own storage drivers (overlay2).
    Graphdriver,
    /// containerd's image store.
    Containerd,
    /// No daemon was asked.
    #[default]
    None,
}

/// How layers went to and from the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Through the loopback registry.
    Registry,
    /// As archives.
    Archive,
    /// Not at all.
    #[default]
    None,
}

/// What was done with the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheMode {
    /// Read and written.
    ReadWrite,
    /// Read.
    ReadOnly,
    /// Neither.
    #[default]
    Off,
}

/// The daemon. Without one, the version is empty and the others are `none`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EngineReport {
    /// `28.5.2`.
    pub version: String,
    /// Where it keeps images.
    pub store: ImageStore,
    /// How layers went.
    pub transport: Transport,
}

/// The CI.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CiReport {
    /// `codebuild`, `travis`, `jenkins`, `github`, `gitlab`, `local`; empty for commands that do not ask.
    pub provider: String,
    /// The commit that it names; empty where it names none.
    pub commit: String,
}

/// A tag that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TagReport {
    /// In full: registry, repository, tag.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Whether it is in the registry now.
    pub pushed: bool,
}

/// An image of the run: one per platform.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ImageReport {
    /// What `docker run` takes on that engine.
    pub id: String,
    /// Of the configuration.
    pub config: String,
    /// Of the manifest; empty where there is none (loaded into overlay2 only).
    pub digest: String,
    /// `linux/amd64`.
    pub platform: String,
    /// What this image cost.
    pub tier: Tier,
    /// Its tags.
    pub tags: Vec<TagReport>,
}

/// The cache.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CacheReport {
    /// `s3://…` or a directory; empty where there is none.
    pub url: String,
    /// What was read and written.
    pub scope: String,
    /// What was read besides.
    pub fallbacks: Vec<String>,
    /// What was done with it.
    pub mode: CacheMode,
    /// Its faults.
    pub warnings: Vec<String>,
}

/// A step of the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct StepReport {
    /// Its stage.
    pub stage: String,
    /// Its line, from 1; 0 where unknown.
    pub line: u32,
    /// `COPY app /app`.
    pub instruction: String,
    /// What became of it.
    pub status: StepStatus,
    /// Why, in the user's terms; empty where there is nothing to say.
    pub reason: String,
    /// Its cache key; empty where BuildKit decides.
    pub key: String,
}

/// What would make the next build cheaper.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct AdviceReport {
    /// The file that it is about.
    pub file: String,
    /// Its line, from 1; 0 where unknown.
    pub line: u32,
    /// How long what it is about took when it was last measured; null where that is not known.
    #[serde(serialize_with = "milliseconds_if_known")]
    pub seconds: Option<f64>,
    /// A sentence or two.
    pub text: String,
}

/// How many layers went where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LayerCounts {
    /// From the cache to the daemon.
    pub restored: u64,
    /// To the cache.
    pub saved: u64,
    /// To the registry.
    pub pushed: u64,
    /// Not sent, because the registry had them.
    pub already_in_registry: u64,
}

/// How many bytes went where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ByteCounts {
    /// From the context to the daemon.
    pub context: u64,
    /// From the cache.
    pub restored: u64,
    /// To the cache.
    pub saved: u64,
    /// To the registry.
    pub pushed: u64,
}

/// How long what took. Stages may overlap, so the total is not their sum.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[allow(missing_docs, reason = "the stages' names")]
pub struct Seconds {
    #[serde(serialize_with = "milliseconds")]
    pub plan: f64,
    #[serde(serialize_with = "milliseconds")]
    pub restore: f64,
    #[serde(serialize_with = "milliseconds")]
    pub build: f64,
    #[serde(serialize_with = "milliseconds")]
    pub save: f64,
    #[serde(serialize_with = "milliseconds")]
    pub push: f64,
    #[serde(serialize_with = "milliseconds")]
    pub total: f64,
}

/// A build of the same image in which everything ran.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColdReport {
    /// How long it took.
    #[serde(serialize_with = "milliseconds")]
    pub seconds: f64,
    /// When it ended, as RFC 3339.
    pub ended: String,
}

fn milliseconds<S: serde::Serializer>(seconds: &f64, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_f64((seconds * 1000.0).round() / 1000.0)
}

fn milliseconds_if_known<S: serde::Serializer>(seconds: &Option<f64>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    match seconds {
        Some(seconds) => milliseconds(seconds, serializer),
        None => serializer.serialize_none(),
    }
}

/// A run. Made with `RunReport::default()` and filled by who knows; a run that stops early has a failure's report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// Of this format: 1.
    pub schema: u32,
    /// hakobi's.
    pub version: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The coldest image's.
    pub tier: Tier,
    /// Who decided what is cached.
    pub strategy: StrategyUsed,
    /// What the CI said.
    pub ci: CiReport,
    /// The daemon.
    pub engine: EngineReport,
    /// The images.
    pub images: Vec<ImageReport>,
    /// The cache.
    pub cache: CacheReport,
    /// The Dockerfile's steps.
    pub steps: Vec<StepReport>,
    /// What the plan advises, what takes longest first.
    pub advice: Vec<AdviceReport>,
    /// Layers.
    pub layers: LayerCounts,
    /// Bytes.
    pub bytes: ByteCounts,
    /// Times.
    pub seconds: Seconds,
    /// The last build of this image in which everything ran, as far as the cache knows of one; null where it does not.
    pub last_cold: Option<ColdReport>,
}

impl Default for RunReport {
    fn default() -> Self {
        Self {
            schema: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            outcome: Outcome::default(),
            tier: Tier::default(),
            strategy: StrategyUsed::default(),
            ci: CiReport::default(),
            engine: EngineReport::default(),
            images: Vec::new(),
            cache: CacheReport::default(),
            steps: Vec::new(),
            advice: Vec::new(),
            layers: LayerCounts::default(),
            bytes: ByteCounts::default(),
            seconds: Seconds::default(),
            last_cold: None,
        }
    }
}

impl RunReport {
    /// Replaces the values that are hidden in all that is made of a Dockerfile or of what someone else said.
    pub fn hide(&mut self, hidden: &Hidden) {
        let steps = self.steps.iter_mut().flat_map(|step| [&mut step.instruction, &mut step.reason]);
        let advice = self.advice.iter_mut().map(|advice| &mut advice.text);
        steps.chain(advice).chain(&mut self.cache.warnings).for_each(|text| hidden.hide(text));
    }

    /// The report as JSON, with a newline at its end.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Nothing in it can fail to become JSON: no maps with odd keys, no foreign types.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Writes the report, so that a reader sees all of it or none.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        file::replace(path, self.to_json().as_bytes())
            .map_err(|error| Error::new(Kind::Usage, format!("failed to write the report to {}", path.display())).because(&error))
    }
}

#[cfg(test)]
mod tests;
