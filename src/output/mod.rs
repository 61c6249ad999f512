//! Shows events to the user: a live display, lines, JSON, the run report and the summary. Only this module writes to the terminal.
//!
//! `trace` collects the status stream. `frame` and `screen` show it on a terminal, `plain` as lines, `raw` as JSON. `steps`
//! records the results of the Dockerfile's steps for the run report in `run`.

mod closing;
mod debug;
mod deploy;
mod display;
mod error;
mod file;
mod frame;
mod log;
mod markdown;
mod metadata;
mod mounts;
mod name;
mod plain;
mod raw;
mod run;
mod screen;
mod seconds;
mod steps;
mod summary;
mod task;
mod terminal;
#[cfg(test)]
mod testing;
mod text;
mod timeline;
mod trace;

pub use debug::show_debug;
pub use deploy::{Deployable, add, add_outputs, can_hand_off, hand_off, write_summary};
pub use display::Shown;
pub use error::{error, warning};
pub use file::can_write;
pub use frame::Size;
pub use markdown::markdown;
pub use metadata::{Metadata, remove_iid_file, write_iid_file};
pub use mounts::{MountReport, MountSeconds};
pub use run::{
    AdviceReport, ByteCounts, CacheMode, CacheReport, CiReport, ColdReport, DiskReport, EngineReport, ImageReport, ImageStore,
    LayerCounts, Outcome, RunReport, Seconds, StepReport, StepStatus, StrategyUsed, TagReport, Tier, Transport,
};
pub use steps::{Location, Note, StepResult, Steps};
pub use summary::{print_summary, summary};
pub use task::{Handle, spawn, spawn_on};
pub use terminal::{Terminal, to_stderr, to_stdout};
pub use text::{answer, one_line};
pub use timeline::Timeline;
