//! The pure part of planning: which steps are cached, and which have to run.
//!
//! `facts` has what is known of the graph's sources and of its stages' files; the graph's keys follow from it. `records` reads and
//! writes the result of each step, by key. `decide` takes both and says which states replace which steps. `image` makes an image of
//! a state and the frontend's configuration. `explain` and `advice` are for the user: why a step runs, and how to avoid that.

mod advice;
mod appendable;
mod auto_mounts;
mod compiled;
mod decide;
mod explain;
mod facts;
mod fits;
mod image;
mod inputs;
mod pairs;
mod proof;
#[cfg(test)]
mod property_tests;
mod record;
mod record_key;
mod records;
mod rounds;
mod tools;
mod variables;

pub use advice::{Advice, advise};
pub use appendable::{Appendable, appendable};
pub use auto_mounts::{AutoMount, is_automatic, possible_mounts};
pub use compiled::{CompiledRecord, Syntax, compiled_key};
pub use decide::{Plan, Verdict};
pub use explain::explain;
pub use facts::{KnownFacts, Seen, selection};
pub use fits::{fits, misfits};
pub use image::{Assembled, aligned, assemble, bare_image, layer_name};
pub use inputs::{Inputs, StepInputs, Unsaved, explained, is_internal};
pub use pairs::measure;
pub use proof::{ExpectedContents, expected_contents, missing, unexpected_file};
pub use record::{
    ColdRecord, CopiedContentRecord, DaemonRecord, ImageRecord, LARGE, Layer, LayerRecord, PartialKeyRecord, PathRecord,
    ProofRecord, Record, RemoteRecord, RunsRecord, StepRecord, copied_content_key, image_key, layer_key, partial_key, path_key,
    proof_key, remote_key, step_key,
};
pub use record_key::RecordKey;
pub use records::Records;
pub use rounds::{next_round, speculative_states};
