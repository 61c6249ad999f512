//! Checks what was made against what was keyed, and remembers it: layers before what names them.

pub mod chain;
pub mod cold_build;
pub mod compare;
pub mod layers;
pub mod look;
pub mod record;
pub mod recording;
pub mod stage_index;
pub mod states;
pub mod without_daemon;
