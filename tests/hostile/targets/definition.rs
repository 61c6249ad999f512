//! Definitions of build graphs, as frontends and records contain them.

use std::collections::{HashMap, HashSet};

use bollard_buildkit_proto::pb;
use hakobi::domain::{ChainId, Digest, Selector};
use hakobi::graph::{
    CopySource, Facts, Graph, Input, Keys, Op, Remote, ResolvedSource, Substitution, apart, cache_mounts, input_dependencies,
    instruction_of, operation_key, pinned, pinned_revision, stage_of,
};
use hakobi::hidden::Hidden;
use hakobi::layers::PathIndex;
use hakobi::layers::assemble::assemble_layer;
use hakobi::plan::{Inputs, KnownFacts, Plan, Seen, advise, appendable, explain, possible_mounts, selection, speculative_states};
use prost::Message as _;

/// Reads the input as a definition, and again with valid digests in it: a step names others by the digests of their bytes, which no
/// mutation guesses.
pub fn definition(input: &[u8]) {
    let Ok(definition) = Graph::decoded(input) else { return };
    if let Ok(graph) = Graph::new(definition.clone()) {
        use_graph(&graph);
    }
    if let Ok(graph) = Graph::new(mended(definition)) {
        use_graph(&graph);
    }
}

/// Returns the definition with inputs that exist.
fn mended(mut definition: pb::Definition) -> pb::Definition {
    let mut known: Vec<(String, String)> = Vec::new();
    let mut def = Vec::new();
    for bytes in &definition.def {
        let Ok(mut op) = pb::Op::decode(&bytes[..]) else { continue };
        for input in &mut op.inputs {
            let renamed = known.iter().find(|(before, _)| *before == input.digest);
            let fallback = known.get(input.digest.len() % known.len().max(1));
            let Some((_, digest)) = renamed.or(fallback) else { continue };
            input.digest.clone_from(digest);
        }
        op.inputs.retain(|input| known.iter().any(|(_, now)| *now == input.digest));
        let now = op.encode_to_vec();
        known.push((Digest::hash(bytes).to_string(), Digest::hash(&now).to_string()));
        def.push(now);
    }
    definition.def = def;
    for (before, now) in known {
        if let Some(metadata) = definition.metadata.remove(&before) {
            definition.metadata.insert(now, metadata);
        }
    }
    definition
}

/// Facts that depend only on a source's bytes.
struct Known;

impl Facts for Known {
    fn image(&self, source: &Op) -> Result<Option<ChainId>, String> {
        Ok(Some(ChainId::hash(source.digest.as_bytes())))
    }

    fn local(&self, source: &Op, selectors: &[Selector]) -> Result<Digest, String> {
        Ok(Digest::hash(format!("{}{selectors:?}", source.digest).as_bytes()))
    }

    fn remote(&self, source: &Op) -> Result<ResolvedSource, String> {
        Ok(ResolvedSource::File { content: source.digest.clone(), modified: String::new() })
    }

    fn copied_content(&self, copied: &CopySource) -> Option<Digest> {
        Some(Digest::hash(format!("{:?}", copied.selectors).as_bytes()))
    }
}

/// Does with a graph what a build does. The part of a graph below a state must have the same keys as the whole.
fn use_graph(graph: &Graph) {
    let result = graph.result().clone();
    let keys = Keys::new(graph, &Known);
    let selectors = [Selector::everything()];
    assert_eq!(Graph::decoded(&Graph::encoded(&graph.cut(&result))).unwrap(), graph.cut(&result));
    let part = Graph::new(graph.cut(&result)).unwrap();
    assert_eq!(Keys::new(&part, &Known).state(&result), keys.state(&result));
    let _ = Graph::new(graph.extraction(&selectors));
    let _ = (graph.places(), graph.base_images(), graph.texts().count(), graph.text("Dockerfile"), graph.side_stages());
    let steps: Vec<Op> = graph.below(&result).into_iter().cloned().collect();
    for op in &steps {
        let state = Input { step: op.digest.clone(), output: 0 };
        let _ = (keys.state(&state), keys.key_without_copied_content(&state), graph.written(&op.digest));
        let _ = (graph.chain(&state), graph.chain_of(&state), graph.lineage(&state).len(), graph.base_of(op));
        let _ = (operation_key(graph, op), apart(op), instruction_of(&op.name), stage_of(&op.name), selection(op));
        let _ = (Remote::from_op(op), pinned(op, &ResolvedSource::Commit("0".repeat(40))), pinned_revision(op));
        assert_eq!(input_dependencies(op).len(), op.inputs.len());
        let _ = cache_mounts(op).iter().filter(|mount| mount.begins_empty(graph)).count();
        let _ = assemble_layer(&op.op, &PathIndex::default(), &|_| None);
    }
    let digests: Vec<Digest> = steps.iter().map(|op| op.digest.clone()).collect();
    let _ = graph.copies_below(&digests);
    rewrite(graph, &steps);
    plan(graph, &keys);
}

fn rewrite(graph: &Graph, steps: &[Op]) {
    let image = Substitution {
        identifier: "docker-image://example.invalid/app".to_owned(),
        attributes: Default::default(),
        name: "base".to_owned(),
    };
    for op in steps.iter().take(8) {
        let from = HashMap::from([(Input { step: op.digest.clone(), output: 0 }, image.clone())]);
        if let Ok(rewritten) = graph.rewritten(graph.result(), &from, &HashSet::new()) {
            Graph::new(rewritten.definition).unwrap();
        }
    }
}

fn plan(graph: &Graph, keys: &Keys) {
    let plan = Plan::new(graph, keys, &HashMap::new(), &Seen::default(), None);
    let _ = (Plan::wanted(graph, keys), appendable(graph, &plan), speculative_states(graph, keys, &plan));
    let now = Inputs::new(graph, keys, &KnownFacts::default(), &Hidden::default());
    let runs = graph.below(graph.result()).into_iter().map(|op| op.digest.clone()).collect();
    let _ = (explain(graph, &plan, None, &now), explain(graph, &plan, Some(&now), &now), advise(graph, &runs, Some(&now), &now));
    let _ = possible_mounts(graph, "namespace");
}
