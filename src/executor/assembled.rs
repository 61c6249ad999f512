//! What comes of making an image without a daemon.

use std::collections::HashMap;

use crate::append::LayerIndex;
use crate::context::Difference;
use crate::graph::Input;
use crate::plan::{Layer, RecordKey, StepRecord};
use crate::publish::release::Released;

/// What came of assembling an image.
pub enum Assembled {
    /// It is there, with what is to be remembered of it.
    Done(Box<Released>, NewLayers),
    /// It takes a daemon, and why, where that is not just that a command has to run.
    Not(Option<String>),
    /// Its files are not what they were when they were hashed.
    Moved(Difference),
    /// The store cannot give what it remembers; that was told.
    Failed,
}

/// What is to be remembered of an image that was made without a daemon, once it is checked.
#[derive(Default)]
pub struct NewLayers {
    /// The records of its new states.
    pub records: HashMap<Input, StepRecord>,
    /// The path indexes of its new layers, by the keys of their records.
    pub indexes: Vec<(RecordKey<LayerIndex>, LayerIndex)>,
    /// The layers of the base image that is the whole result: nothing has unpacked them.
    pub of_base: Option<Vec<Layer>>,
}
