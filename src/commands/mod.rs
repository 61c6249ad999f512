//! The commands of hakobi: each opens what it needs, calls the stages in order, and reports.

mod build;
mod by_plan;
mod call;
mod daemonless;
mod disk_process;
mod doctor;
mod explain;
mod images;
mod init;
mod lazy;
mod mounts;
mod outcome;
mod own_process;
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
pub use own_process::own_process;
pub use plan::plan;
pub use promote::{history, promote};
pub use push::push;
pub use tarballs::{export, import};
pub use upkeep::{Answer, cache};
