//! What is remembered of a planned build, however it was made: records, behind the layers that they name.

use std::collections::{HashMap, HashSet};

use super::job::Job;
use super::kept::Kept;
use super::planning::Planned;
use crate::domain::StepKey;
use crate::error::Result;
use crate::graph::{Input, Key, Keys};
use crate::handover::Composed;
use crate::plan::{HopeRecord, ImageRecord, Inputs, LayerRecord, StepRecord, TakenRecord, layer_key};
use crate::registry::{Home as _, Source as _};
use crate::save::only_image;

/// A build whose layers are in the store.
pub(super) struct Remembering<'a> {
    pub(super) planned: &'a Planned,
    pub(super) kept: &'a Kept,
    /// By all that is known at the end.
    pub(super) keys: &'a Keys,
    pub(super) image: &'a Composed,
    pub(super) inputs: &'a Inputs,
}

impl Job<'_> {
    /// Writes what became of each state, and what the next run begins with.
    pub(super) async fn remember(
        &self,
        build: &Remembering<'_>,
        records: HashMap<Input, StepRecord>,
        taken: Vec<(StepKey, TakenRecord)>,
    ) -> Result<()> {
        let Remembering { planned, kept, keys, image, inputs } = *build;
        let faulty = super::cache_fault::<crate::store::Error>;
        let hopes: Vec<_> = records.keys().filter_map(|state| Some((keys.weak(state)?, HopeRecord {}))).collect();
        let keyed = |(state, record)| match keys.state(&state) {
            Key::Known(key) => Some((key, record)),
            _ => None,
        };
        let store = kept.records();
        let known = planned.plan.kept.values().flat_map(|record| &record.layers).map(layer_key);
        let known: HashSet<StepKey> = known.collect();
        let new = records.values().flat_map(|record| &record.layers).map(layer_key).filter(|key| !known.contains(key));
        let new: HashSet<StepKey> = new.collect();
        store.write(new.into_iter().map(|key| (key, LayerRecord {}))).await.map_err(faulty)?;
        store.write(taken).await.map_err(faulty)?;
        store.write(records.into_iter().filter_map(keyed)).await.map_err(faulty)?;
        store.write(hopes).await.map_err(faulty)?;
        store.write([(kept.inputs_key(), inputs)]).await.map_err(faulty)?;
        store.write(planned.facts.asked.iter().cloned()).await.map_err(faulty)?;
        if let Some(compiled) = planned.compiled_by.as_ref()
            && let Some(record) = self.compiled_record(compiled, planned).await
        {
            store.write([record]).await.map_err(faulty)?;
        }
        let Some(own) = kept.own() else { return Ok(()) };
        let put = async |manifest: &crate::domain::RawManifest, reference: &str| {
            own.put_manifest(manifest, reference).await.map_err(super::cache_fault)
        };
        put(&image.manifest, &image.manifest.digest().to_string()).await?;
        if let Key::Known(key) = keys.state(planned.graph.result()) {
            let record = ImageRecord { manifest: image.manifest.descriptor() };
            store.write([(self.image_key(&key, planned), record)]).await.map_err(faulty)?;
        }
        self.point(kept, image).await
    }

    /// Has the image's name in the store stand for this one: what `cache ls`, `restore` and `export` know it by.
    pub(super) async fn point(&self, kept: &Kept, image: &Composed) -> Result<()> {
        let (Some(own), Some(target)) = (kept.own(), kept.target()) else { return Ok(()) };
        let index = only_image(image).map_err(super::cache_fault)?;
        let faulty = super::cache_fault::<crate::registry::Error>;
        let tag = target.reference();
        if own.manifest(&tag).await.map_err(faulty)?.is_some_and(|there| there.digest() == index.digest()) {
            return Ok(());
        }
        own.put_manifest(&index, &tag).await.map(drop).map_err(faulty)
    }
}
