//! The processes with which hakobi calls itself.

use std::fs::File;

use crate::cli::OwnProcess;
use crate::commands::disk_process::disk_process;
use crate::lazy_daemon::keep;
use crate::mounts::inside;

/// Runs a process of hakobi's own to its end, with these standard streams. Returns its exit code.
#[must_use]
pub fn own_process(process: &OwnProcess, input: File, output: File) -> u8 {
    match process {
        OwnProcess::Mounts(directories) => inside::run(directories, input, output),
        OwnProcess::DaemonKeeper => keep(input, output),
        OwnProcess::Disk => disk_process(input, output),
    }
}
