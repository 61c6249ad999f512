//! The inputs of a recorder, and the evidence that it checks records against.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::build_context::Tree;
use crate::domain::Digest;
use crate::executor::execution::Execution;
use crate::executor::progress::SolveProgress;
use crate::graph::Keys;
use crate::handover::Intake;
use crate::planner::build_plan::BuildPlan;

/// Records one build.
pub struct Recorder<'a> {
    pub execution: &'a Execution<'a>,
    pub plan: &'a BuildPlan,
}

/// The evidence that the recorder checks records against.
pub struct Evidence<'a> {
    pub progress: &'a SolveProgress,
    pub keys: &'a Keys,
    /// The intakes that received layers from the daemon.
    pub intakes: &'a [&'a Intake],
    /// The files of layers that hakobi has read already.
    pub trees: Mutex<HashMap<Digest, Arc<Tree>>>,
}
