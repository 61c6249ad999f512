//! What a recorder works with, and what it holds records against.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::build_context::Tree;
use crate::domain::Digest;
use crate::executor::execution::Execution;
use crate::executor::progress::SolveProgress;
use crate::graph::Keys;
use crate::handover::Intake;
use crate::planner::build_plan::BuildPlan;

/// What is remembered of a build.
pub struct Recorder<'a> {
    pub execution: &'a Execution<'a>,
    pub plan: &'a BuildPlan,
}

/// What records are held against.
pub struct Proved<'a> {
    pub progress: &'a SolveProgress,
    pub keys: &'a Keys,
    /// What took layers from the daemon.
    pub intakes: &'a [&'a Intake],
    /// The files of layers that were read already.
    pub trees: Mutex<HashMap<Digest, Arc<Tree>>>,
}
