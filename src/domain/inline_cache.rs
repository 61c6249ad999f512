//! BuildKit's inline cache: the records in an image's configuration that say which steps made which of its layers.
//!
//! The format is BuildKit's (`cache/remotecache/v1/spec.go`): a list of records that refer to each other by index, with results
//! that refer to the image's layers by index. A daemon sometimes forgets to export records again (BuildKit issues 1981, 2274).
//! hakobi copies these from the image that the build used, as long as their layers are the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Digest;

/// The configuration's key that has the records.
pub const INLINE_CACHE_KEY: &str = "moby.buildkit.cache.v0";

/// One step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    #[serde(default, rename = "layers", skip_serializing_if = "Vec::is_empty")]
    results: Vec<LayerResult>,
    #[serde(default, rename = "chains", skip_serializing_if = "Vec::is_empty")]
    chains: Vec<ChainResult>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    digest: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<Vec<Link>>,
    /// Fields that a later BuildKit may add.
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// A step's result: the image's layers up to this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LayerResult {
    layer: usize,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// A layer of a cache configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CacheLayer {
    /// The blob.
    pub blob: Digest,
    /// The index of the layer below; -1 for none.
    pub parent: i64,
}

/// A step's result: these layers of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ChainResult {
    #[serde(default)]
    layers: Vec<usize>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// A reference to a step that another step needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Link {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    selector: String,
    #[serde(default)]
    link: usize,
}

/// The records of one image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InlineCache {
    records: Vec<Record>,
    /// The indexes of the records; each comes after those that its record needs.
    order: Vec<usize>,
}

impl InlineCache {
    /// Reads the value of [`INLINE_CACHE_KEY`]. Returns `None` if it is malformed.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let records: Vec<Record> = serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()?;
        let order = in_order(&records)?;
        Some(Self { records, order })
    }

    /// Returns the value of [`INLINE_CACHE_KEY`].
    #[must_use]
    pub fn encode(&self) -> String {
        STANDARD.encode(serde_json::to_vec(&self.records).unwrap_or_default())
    }

    /// Returns the number of results.
    #[must_use]
    pub fn results(&self) -> usize {
        self.records.iter().map(|record| record.results.len() + record.chains.len()).sum()
    }

    /// Adds the missing results of the steps on the image's own chain of layers. The daemon exports the records of all steps, but
    /// for some it forgets which layer they made.
    ///
    /// `base_inputs` are the steps from the first to the last, each with the input that its layer is based on. The image's last
    /// layers belong to these steps, one to each. The records of the last step are those that no other record needs. From there,
    /// the chain follows only each step's base input, so that it reaches no record of another stage. Returns an unchanged copy
    /// unless everything is consistent: every step has records, no record occurs twice, and each result of the daemon agrees.
    #[must_use]
    pub fn completed(&self, base_inputs: &[usize], layers: usize) -> Self {
        self.chain_results(base_inputs, layers).unwrap_or_else(|| self.clone())
    }

    fn chain_results(&self, base_inputs: &[usize], layers: usize) -> Option<Self> {
        let first = layers.checked_sub(base_inputs.len())?;
        let needed: BTreeSet<usize> =
            self.records.iter().flat_map(|record| record.inputs.iter().flatten().map(|link| link.link)).collect();
        let mut step: BTreeSet<usize> = (0..self.records.len()).filter(|index| !needed.contains(index)).collect();
        let mut layer_of: BTreeMap<usize, usize> = BTreeMap::new();
        for (place, base_input) in base_inputs.iter().enumerate().rev() {
            if step.is_empty() {
                return None;
            }
            let mut below = BTreeSet::new();
            for index in step {
                if layer_of.insert(index, first + place).is_some() {
                    return None;
                }
                if place > 0 {
                    below.extend(self.records[index].inputs.get(*base_input)?.iter().map(|link| link.link));
                }
            }
            step = below;
        }
        let mut out = self.clone();
        for (index, layer) in layer_of {
            let record = &mut out.records[index];
            if record.results.iter().any(|result| result.layer != layer) || !record.chains.is_empty() {
                return None;
            }
            if record.results.is_empty() {
                record.results.push(LayerResult { layer, other: BTreeMap::new() });
            }
        }
        Some(out)
    }

    /// Adds the older records for the first `shared` layers, which both images have.
    #[must_use]
    pub fn merge(&self, older: &Self, shared: usize) -> Self {
        let mut merged = Merged::default();
        merged.add(self, Some);
        merged.add(older, |layer| (layer < shared).then_some(layer));
        let records = useful(merged.records);
        match in_order(&records) {
            Some(order) => Self { records, order },
            None => self.clone(),
        }
    }

    /// Joins the records of several images into one list, whose results are indexes in `layers` (BuildKit's cache configuration,
    /// `application/vnd.buildkit.cacheconfig.v0`). Each image comes with the indexes of its layers. Returns `None` if the records
    /// are inconsistent.
    #[must_use]
    pub fn joined(images: &[(Self, Vec<usize>)], layers: &[CacheLayer]) -> Option<Vec<u8>> {
        let mut merged = Merged::default();
        for (cache, places) in images {
            merged.add(cache, |layer| places.get(layer).copied());
        }
        let records = useful(merged.records);
        in_order(&records)?;
        serde_json::to_vec(&serde_json::json!({ "layers": layers, "records": records })).ok()
    }
}

/// Returns the indexes of the records, each after those that it needs. Returns `None` if the references are circular or out of
/// range.
fn in_order(records: &[Record]) -> Option<Vec<usize>> {
    let mut needs: Vec<usize> = Vec::with_capacity(records.len());
    let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); records.len()];
    for (index, record) in records.iter().enumerate() {
        for link in record.inputs.iter().flatten() {
            needed_by.get_mut(link.link)?.push(index);
        }
        needs.push(record.inputs.iter().flatten().count());
    }
    let mut order: Vec<usize> = (0..records.len()).filter(|index| needs[*index] == 0).collect();
    let mut next = 0;
    while let Some(&index) = order.get(next) {
        next += 1;
        for &dependent in &needed_by[index] {
            needs[dependent] -= 1;
            if needs[dependent] == 0 {
                order.push(dependent);
            }
        }
    }
    (order.len() == records.len()).then_some(order)
}

/// Removes records without a result, unless a record with a result needs them.
fn useful(mut records: Vec<Record>) -> Vec<Record> {
    let mut wanted = BTreeSet::new();
    let mut open: Vec<usize> =
        (0..records.len()).filter(|index| !records[*index].results.is_empty() || !records[*index].chains.is_empty()).collect();
    while let Some(index) = open.pop() {
        if wanted.insert(index) {
            open.extend(records[index].inputs.iter().flatten().map(|link| link.link));
        }
    }
    let places: HashMap<usize, usize> = wanted.iter().enumerate().map(|(new, old)| (*old, new)).collect();
    wanted
        .into_iter()
        .map(|index| {
            let mut record = std::mem::take(&mut records[index]);
            for link in record.inputs.iter_mut().flatten() {
                link.link = places.get(&link.link).copied().unwrap_or_default();
            }
            record
        })
        .collect()
}

#[derive(Default)]
struct Merged {
    records: Vec<Record>,
    /// The indexes of the records of each operation.
    by_operation: HashMap<String, Vec<usize>>,
}

impl Merged {
    /// Adds a cache's records. `place_of` returns the new index of a layer, for their results.
    fn add(&mut self, cache: &InlineCache, place_of: impl Fn(usize) -> Option<usize>) {
        let mut places = vec![0; cache.records.len()];
        for &index in &cache.order {
            let record = &cache.records[index];
            let inputs: Vec<Vec<Link>> = record
                .inputs
                .iter()
                .map(|alternatives| {
                    let mut links: Vec<Link> = alternatives
                        .iter()
                        .map(|link| Link { selector: link.selector.clone(), link: places[link.link] })
                        .collect();
                    in_order_of_places(&mut links);
                    links
                })
                .collect();
            let results: Vec<LayerResult> = record
                .results
                .iter()
                .filter_map(|result| Some(LayerResult { layer: place_of(result.layer)?, other: result.other.clone() }))
                .collect();
            let chains: Vec<ChainResult> = record
                .chains
                .iter()
                .filter_map(|chain| {
                    let layers = chain.layers.iter().map(|layer| place_of(*layer)).collect::<Option<Vec<_>>>()?;
                    Some(ChainResult { layers, other: chain.other.clone() })
                })
                .collect();
            let operation = format!("{} {:?}", record.digest, record.other);
            let places_of = self.by_operation.entry(operation).or_default();
            places[index] = match places_of.iter().copied().find(|place| same_step(&self.records[*place].inputs, &inputs)) {
                Some(place) => {
                    let there = &mut self.records[place];
                    for (ours, theirs) in there.inputs.iter_mut().zip(inputs) {
                        ours.extend(theirs);
                        in_order_of_places(ours);
                    }
                    // The newer image's result comes first and wins.
                    if there.results.is_empty() && there.chains.is_empty() {
                        there.results = results;
                        there.chains = chains;
                    }
                    place
                }
                None => {
                    let place = self.records.len();
                    self.records.push(Record {
                        results,
                        chains,
                        digest: record.digest.clone(),
                        inputs,
                        other: record.other.clone(),
                    });
                    places_of.push(place);
                    place
                }
            };
        }
    }
}

/// Returns whether two records of the same operation belong to one step: at each input they have a key in common. All keys that a
/// record lists for an input are keys of the same state.
fn same_step(a: &[Vec<Link>], b: &[Vec<Link>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a.is_empty() && b.is_empty()) || a.iter().any(|link| b.contains(link)))
}

fn in_order_of_places(links: &mut Vec<Link>) {
    links.sort_by(|a, b| (a.link, &a.selector).cmp(&(b.link, &b.selector)));
    links.dedup();
}

/// Returns the digest of an image's configuration without what differs between two builds of the same image: times and cache
/// records.
///
/// # Errors
/// If it is no JSON object.
pub fn comparable(config: &[u8]) -> Result<Digest, serde_json::Error> {
    let mut config: serde_json::Map<String, Value> = serde_json::from_slice(config)?;
    config.remove(INLINE_CACHE_KEY);
    config.remove("created");
    // Where this build ran (BuildKit up to 0.10).
    config.remove("moby.buildkit.buildinfo.v1");
    if let Some(history) = config.get_mut("history").and_then(Value::as_array_mut) {
        for entry in history.iter_mut().filter_map(Value::as_object_mut) {
            entry.remove("created");
        }
    }
    Ok(Digest::hash(&serde_json::to_vec(&config)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(records: Value) -> InlineCache {
        InlineCache::decode(&STANDARD.encode(records.to_string())).expect("records")
    }

    #[test]
    fn what_was_forgotten_is_carried_over() {
        let older = cache(serde_json::json!([
            {"digest": "base"},
            {"digest": "run", "inputs": [[{"link": 0}]], "layers": [{"layer": 1, "createdAt": "then"}]},
            {"digest": "copy", "inputs": [[{"link": 1}]], "layers": [{"layer": 2}]},
        ]));
        let newer = cache(serde_json::json!([
            {"digest": "copy", "inputs": [[{"link": 1}]], "layers": [{"layer": 2}]},
            {"digest": "run", "inputs": [[{"link": 2}]]},
            {"digest": "base"},
        ]));
        let merged = newer.merge(&older, 3);
        assert_eq!(merged.results(), 2);
        assert_eq!(merged.records.len(), 3);
        // Merging again changes nothing.
        assert_eq!(merged.merge(&older, 3), merged);
    }

    #[test]
    fn what_is_said_of_other_layers_is_not() {
        let older = cache(serde_json::json!([
            {"digest": "base"},
            {"digest": "run", "inputs": [[{"link": 0}]], "layers": [{"layer": 1}]},
            {"digest": "old copy", "inputs": [[{"link": 1}]], "layers": [{"layer": 2}]},
            {"digest": "chained", "inputs": [[{"link": 1}]], "chains": [{"layers": [0, 2]}]},
        ]));
        let newer = cache(serde_json::json!([
            {"digest": "base"},
            {"digest": "new copy", "inputs": [[{"link": 0}]], "layers": [{"layer": 2}]},
        ]));
        let merged = newer.merge(&older, 2);
        let digests: Vec<&str> = merged.records.iter().map(|record| &*record.digest).collect();
        assert_eq!(digests, ["base", "new copy", "run"]);
    }

    #[test]
    fn forgotten_results_of_the_chain_are_filled_in() {
        // FROM base; RUN a; COPY --from=other x; RUN b. The stage `other` is FROM the same base image, with a step of its own.
        let records = serde_json::json!([
            {"digest": "base"},
            {"digest": "a", "inputs": [[{"link": 0}]], "layers": [{"layer": 1}]},
            {"digest": "other", "inputs": [[{"link": 0}]]},
            {"digest": "copy", "inputs": [[{"link": 1}], [{"link": 2, "selector": "s"}, {"link": 5}]]},
            {"digest": "b", "inputs": [[{"link": 3}]]},
            {"digest": "content"},
        ]);
        let done = cache(records.clone()).completed(&[0, 0, 0], 4);
        let layers: Vec<Option<usize>> =
            done.records.iter().map(|record| record.results.first().map(|result| result.layer)).collect();
        assert_eq!(layers, [None, Some(1), None, Some(2), Some(3), None]);
        // If a result contradicts, or the steps are inconsistent, nothing changes.
        assert_eq!(cache(records.clone()).completed(&[0, 0, 0], 5), cache(records.clone()));
        assert_eq!(cache(records.clone()).completed(&[0, 0, 0, 0, 0], 6), cache(records));
    }

    #[test]
    fn malformed_records_are_no_cache() {
        for text in ["", "x", &STANDARD.encode("{}"), &STANDARD.encode(r#"[{"digest":"a","inputs":[[{"link":7}]]}]"#)] {
            assert_eq!(InlineCache::decode(text), None, "{text}");
        }
        let circle = r#"[{"digest":"a","inputs":[[{"link":1}]]},{"digest":"b","inputs":[[{"link":0}]]}]"#;
        assert_eq!(InlineCache::decode(&STANDARD.encode(circle)), None);
    }

    #[test]
    fn times_and_cache_do_not_count() {
        let a = br#"{"created":"1","config":{"Cmd":["x"]},"history":[{"created":"1","created_by":"y"}],"moby.buildkit.cache.v0":"eA=="}"#;
        let b = br#"{"created":"2","config":{"Cmd":["x"]},"history":[{"created":"2","created_by":"y"}]}"#;
        let c = br#"{"created":"2","config":{"Cmd":["z"]},"history":[{"created":"2","created_by":"y"}]}"#;
        assert_eq!(comparable(a).expect("json"), comparable(b).expect("json"));
        assert_ne!(comparable(b).expect("json"), comparable(c).expect("json"));
    }
}
