//! The run report (`--report`), schema 1. It is a stable contract, so every report has all keys.

use std::path::Path;

use serde::Serialize;

use super::file;
use super::mounts::MountReport;
use super::seconds::{milliseconds, milliseconds_if_known};
use crate::error::{Error, Kind, Result};
use crate::hidden::Hidden;

/// The outcome of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The run completed all requested work.
    Success,
    /// The run failed. This is also the default until hakobi sets the outcome.
    #[default]
    Failure,
    /// No work was needed (`--if-tag-exists skip`).
    Skipped,
}

/// The amount of work of a run, from the least to the most. The tier of several images is the largest of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// No layer was transferred.
    Unchanged,
    /// hakobi added new layers without running a step.
    Append,
    /// Some steps ran.
    Partial,
    /// All steps ran.
    #[default]
    Cold,
}

impl Tier {
    /// Returns the name in the report.
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

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepStatus {
    /// The step's result was in the cache.
    Hit,
    /// The step ran.
    #[default]
    Miss,
    /// No other step needed it.
    Skipped,
    /// The step is never cached.
    Uncacheable,
}

/// What decided which steps are cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StrategyUsed {
    /// hakobi's plan.
    #[default]
    Auto,
    /// BuildKit.
    Daemon,
}

/// The daemon's image store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageStore {
    /// Docker's own storage drivers (overlay2).
    Graphdriver,
    /// containerd's image store.
    Containerd,
    /// The run used no daemon.
    #[default]
    None,
}

/// The transfer of layers to and from the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// hakobi's loopback registry.
    Registry,
    /// Docker archives.
    Archive,
    /// No transfer.
    #[default]
    None,
}

/// The use of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheMode {
    /// hakobi read and wrote the cache.
    ReadWrite,
    /// hakobi only read the cache.
    ReadOnly,
    /// hakobi used no cache.
    #[default]
    Off,
}

/// The daemon. Without a daemon the version is empty and the other values are `none`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EngineReport {
    /// The version, such as `28.5.2`.
    pub version: String,
    /// The image store.
    pub store: ImageStore,
    /// The transfer of layers.
    pub transport: Transport,
    /// The disk of the daemon, if it was one of hakobi's own (`--daemon lazy`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskReport>,
}

/// The disk of a daemon of hakobi's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DiskReport {
    /// Whether the cache has it as it is after this build.
    pub kept: bool,
    /// The number of bytes that were read of what earlier builds saved, in whole chunks. 0 if the disk is not kept.
    pub read: u64,
    /// The number of bytes that the cache lacked, compressed.
    pub saved: u64,
}

/// The CI.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CiReport {
    /// `codebuild`, `travis`, `jenkins`, `github`, `gitlab` or `local`. Empty for commands that do not detect the CI.
    pub provider: String,
    /// The commit from the CI's environment. Empty if the CI sets none.
    pub commit: String,
}

/// A requested tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TagReport {
    /// The full reference: registry, repository and tag.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Whether the tag is in the registry after the run.
    pub pushed: bool,
}

/// An image of the run. There is one per platform.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ImageReport {
    /// The ID that `docker run` accepts on this daemon.
    pub id: String,
    /// The digest of the image config.
    pub config: String,
    /// The digest of the manifest. Empty if there is none: the image was only loaded into overlay2.
    pub digest: String,
    /// The platform, such as `linux/amd64`.
    pub platform: String,
    /// The amount of work for this image.
    pub tier: Tier,
    /// The tags.
    pub tags: Vec<TagReport>,
}

/// The cache.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CacheReport {
    /// `s3://…` or a directory. Empty if the run had no cache.
    pub url: String,
    /// The scope that hakobi reads first and writes.
    pub scope: String,
    /// The other scopes that hakobi reads.
    pub fallbacks: Vec<String>,
    /// The use of the cache.
    pub mode: CacheMode,
    /// The faults of the cache.
    pub warnings: Vec<String>,
}

/// A step of the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct StepReport {
    /// The stage.
    pub stage: String,
    /// The line, from 1. 0 if unknown.
    pub line: u32,
    /// The instruction, such as `COPY app /app`.
    pub instruction: String,
    /// The result.
    pub status: StepStatus,
    /// The reason for the result, for a person. Empty if there is none.
    pub reason: String,
    /// The cache key. Empty if BuildKit decides what is cached.
    pub key: String,
}

/// Advice that would make the next build faster.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct AdviceReport {
    /// The file that it is about.
    pub file: String,
    /// The line, from 1. 0 if unknown.
    pub line: u32,
    /// The last measured time of the step that it is about, in seconds. Null if unknown.
    #[serde(serialize_with = "milliseconds_if_known")]
    pub seconds: Option<f64>,
    /// The advice, in a sentence or two.
    pub text: String,
}

/// The numbers of transferred layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LayerCounts {
    /// From the cache to the daemon.
    pub restored: u64,
    /// To the cache.
    pub saved: u64,
    /// To the registry.
    pub pushed: u64,
    /// Not sent, because the registry already had them.
    pub already_in_registry: u64,
}

/// The numbers of transferred bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ByteCounts {
    /// From the build context to the daemon.
    pub context: u64,
    /// From the cache.
    pub restored: u64,
    /// To the cache.
    pub saved: u64,
    /// To the registry.
    pub pushed: u64,
}

/// The times of the run's stages, in seconds. Stages may overlap, so the total is not their sum.
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

/// An earlier build of the same image in which all steps ran.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColdReport {
    /// The time that it took, in seconds.
    #[serde(serialize_with = "milliseconds")]
    pub seconds: f64,
    /// The time of its end, as RFC 3339.
    pub ended: String,
}

/// A run. It starts as `RunReport::default()`, and each stage fills in its part. If the run stops early, the report shows a failure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// The version of this format: 1.
    pub schema: u32,
    /// hakobi's version.
    pub version: String,
    /// The outcome.
    pub outcome: Outcome,
    /// The largest tier of the images.
    pub tier: Tier,
    /// What decided which steps are cached.
    pub strategy: StrategyUsed,
    /// The CI.
    pub ci: CiReport,
    /// The daemon.
    pub engine: EngineReport,
    /// The images.
    pub images: Vec<ImageReport>,
    /// The cache.
    pub cache: CacheReport,
    /// The Dockerfile's steps.
    pub steps: Vec<StepReport>,
    /// The plan's advice, for the slowest steps first.
    pub advice: Vec<AdviceReport>,
    /// The cache mounts of the commands that ran.
    pub mounts: Vec<MountReport>,
    /// The transferred layers.
    pub layers: LayerCounts,
    /// The transferred bytes.
    pub bytes: ByteCounts,
    /// The times of the stages.
    pub seconds: Seconds,
    /// The last build of this image in which all steps ran. Null if the cache has no record of one.
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
            mounts: Vec::new(),
            layers: LayerCounts::default(),
            bytes: ByteCounts::default(),
            seconds: Seconds::default(),
            last_cold: None,
        }
    }
}

impl RunReport {
    /// Replaces hidden values in all texts that come from a Dockerfile or from another program.
    pub fn hide(&mut self, hidden: &Hidden) {
        let steps = self.steps.iter_mut().flat_map(|step| [&mut step.instruction, &mut step.reason]);
        let advice = self.advice.iter_mut().map(|advice| &mut advice.text);
        let mounts = self.mounts.iter_mut().flat_map(|mount| [&mut mount.id, &mut mount.reason]);
        steps.chain(advice).chain(mounts).chain(&mut self.cache.warnings).for_each(|text| hidden.hide(text));
    }

    /// Returns the report as JSON, with a newline at its end.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Serialization never fails: the report has no maps and no foreign types.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Writes the report. A reader sees either the whole report or none of it.
    ///
    /// # Errors
    /// If the file is not writable.
    pub fn write(&self, path: &Path) -> Result<()> {
        file::replace(path, self.to_json().as_bytes())
            .map_err(|error| Error::new(Kind::Usage, format!("failed to write the report to {}", path.display())).because(&error))
    }
}

#[cfg(test)]
mod tests;
