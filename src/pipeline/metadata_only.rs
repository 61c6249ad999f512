//! An image that is its base with another configuration: nothing runs, and no base comes down to a daemon.

use std::collections::HashMap;

use super::assembling::Assembled;
use super::indexing;
use super::job::Job;
use super::kept::Kept;
use super::planning::Planned;
use super::release::{Given, Release, Released};
use super::solving::broken;
use super::unchanged::composed;
use crate::domain::StepKey;
use crate::error::Result;
use crate::handover::KnownImage;
use crate::plan::{Layer, LayerRecord, StepRecord, assemble, layer_key};
use crate::transfer::compress::plain;

impl Planned {
    /// The base image that is the whole result, if a registry has it.
    pub(super) fn base_alone(&self) -> Option<&KnownImage> {
        let result = self.graph.result();
        let is_open = !self.plan.kept.contains_key(result);
        self.bases.get(result).filter(|_| is_open)
    }
}

impl Job<'_> {
    /// Puts the base's layers under this build's configuration; a registry that has them already mounts them.
    pub(super) async fn put_base(&self, planned: &Planned, kept: &Kept, base: &KnownImage) -> Result<Assembled> {
        let layers: Vec<Layer> = base
            .manifest
            .layers
            .iter()
            .zip(&base.diff_ids)
            .map(|(blob, diff_id)| Layer { blob: blob.clone().bare(), diff_id: diff_id.clone(), created: None })
            .collect();
        let annotations = self.annotations().into_iter().map(|(name, value)| (name, value.into())).collect();
        let image = assemble(&planned.compiled.config, &layers, &annotations).map_err(|error| broken(&error))?;
        let keep = kept.target().map(|target| target.repository);
        let settings = &self.build.push_settings;
        let release = Release::open(&self.registries, &self.tags, keep.as_ref(), settings, &[], self.events).await?;
        match release.put_from(composed(image.manifest, image.config)?, base).await? {
            Given::Done(released) => {
                let mut records = HashMap::new();
                if keep.is_some() && self.proves(kept, &released, &layers).await {
                    records.insert(planned.graph.result().clone(), StepRecord { layers, ran: None });
                }
                Ok(Assembled::Done(released, records))
            }
            Given::Not(_) => Ok(Assembled::Not(None)),
        }
    }

    /// Whether the layers, which no daemon has unpacked, are what the base says that they are. Their paths are remembered on the way.
    async fn proves(&self, kept: &Kept, released: &Released, layers: &[Layer]) -> bool {
        // A fault of the store is told when the build is remembered.
        if released.kept().await.is_err() {
            return false;
        }
        let records = kept.records();
        let keys: Vec<StepKey> = layers.iter().map(layer_key).collect();
        let known: HashMap<StepKey, LayerRecord> = records.read(&keys).await.unwrap_or_default();
        for (layer, _) in layers.iter().zip(&keys).filter(|(_, key)| !known.contains_key(key)) {
            let bytes = kept.blobs().open(&layer.blob.digest, Some(layer.blob.size), 0).await;
            let Ok(Some(bytes)) = bytes else { return false };
            let Some(index) = indexing::index(plain(bytes).await.ok(), Some(&layer.diff_id)).await else { return false };
            if !index.holds(self.events.hidden()) {
                let _ = records.write([(indexing::key(&layer.blob.digest, &layer.diff_id), index)]).await;
            }
        }
        true
    }
}
