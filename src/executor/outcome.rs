//! The result of an execution.

use std::collections::HashMap;

use crate::engine::buildkit::SolveOutcome;
use crate::graph::Input;
use crate::layers::LayerIndex;
use crate::plan::{Layer, RecordKey, StepRecord};
use crate::publish::release::Released;

/// An image, and who made it.
pub struct Outcome {
    /// `None` if the image was not pushed, nor saved to the cache.
    pub released: Option<Box<Released>>,
    pub maker: Maker,
    /// The ID that the daemon gave the image; empty if no daemon made it.
    pub id: String,
    pub solved: SolveOutcome,
}

impl Outcome {
    /// Returns an image that hakobi pushed and that no daemon has.
    pub fn pushed(released: Box<Released>, maker: Maker) -> Self {
        Self { released: Some(released), maker, id: String::new(), solved: SolveOutcome::default() }
    }
}

/// Who made an image.
pub enum Maker {
    /// An earlier build. `is_as_recorded` if the cache had its manifest, so that hakobi did not assemble it again.
    EarlierBuild { is_as_recorded: bool },
    /// hakobi itself, without a daemon.
    Hakobi(NewLayers),
    /// The daemon made the new layers, on a skeleton of the base image; hakobi assembled the image.
    Both,
    /// The daemon.
    Daemon,
}

/// New layers of an image that hakobi made without a daemon. The recorder checks them before it records them.
#[derive(Default)]
pub struct NewLayers {
    /// The records of its new states.
    pub records: HashMap<Input, StepRecord>,
    /// The path indexes of its new layers, by the keys of their records.
    pub indexes: Vec<(RecordKey<LayerIndex>, LayerIndex)>,
    /// The layers of the base image, if it is the whole result: no daemon has unpacked them.
    pub of_base: Option<Vec<Layer>>,
}
