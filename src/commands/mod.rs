//! The commands of hakobi: each opens what it needs, calls the stages in order, and reports.

mod build;
mod by_plan;
mod call;
mod daemonless;
mod doctor;
mod explain;
mod images;
mod init;
mod mounts;
mod outcome;
mod plan;
mod promote;
mod push;
mod tarballs;
mod upkeep;

pub use crate::mounts::inside::run as mount_process;
pub use crate::run::built::Built;
pub use build::build;
pub use doctor::doctor;
pub use images::{restore, save};
pub use init::init;
pub use plan::plan;
pub use promote::{history, promote};
pub use push::push;
pub use tarballs::{export, import};
pub use upkeep::{Answer, cache};
