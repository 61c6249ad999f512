//! A Docker daemon of hakobi's own, whose data root is a disk in the store that comes while it is read.
//!
//! [`LazyDaemon`] is what a build sees. Behind it is a process that keeps the daemon ([`keep`]): it lets another process serve the disk
//! as a file (`crate::disk`), mounts that file through a loop device, and starts `dockerd` on it. After a clean end the changed chunks
//! are saved. Nothing of the machine's own daemon is touched.

mod bridge;
mod command;
pub mod configuration;
mod daemon;
mod daemon_process;
mod keeper;
mod loop_device;
pub mod machine;
mod protocol;

pub use daemon::LazyDaemon;
pub use keeper::run as keep;
pub use protocol::DaemonStart;
