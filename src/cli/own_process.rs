//! The hidden commands with which hakobi calls itself. clap does not know them, so they are in no help, completion or manual page, and
//! start at once.

use std::ffi::OsString;
use std::path::PathBuf;

/// A process of hakobi's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnProcess {
    /// `mount-process DIR…`: reads and fills cache mounts, in a container that has these.
    Mounts(Vec<PathBuf>),
    /// `daemon-keeper`: keeps a daemon whose data root is a disk in the store.
    DaemonKeeper,
    /// `disk-process`: serves that disk.
    Disk,
}

/// Returns the process that this command line asks for. Returns `None` for the commands of users.
pub fn own_process(args: impl IntoIterator<Item = OsString>) -> Option<OwnProcess> {
    let mut args = args.into_iter().skip(1);
    match args.next()?.to_str()? {
        "mount-process" => Some(OwnProcess::Mounts(args.map(PathBuf::from).collect())),
        "daemon-keeper" => Some(OwnProcess::DaemonKeeper),
        "disk-process" => Some(OwnProcess::Disk),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_argument_is_the_command() {
        let of = |args: &[&str]| own_process(args.iter().map(Into::into));
        assert_eq!(of(&["/hakobi", "mount-process", "/a", "/b"]), Some(OwnProcess::Mounts(vec!["/a".into(), "/b".into()])));
        assert_eq!(of(&["hakobi", "mount-process"]), Some(OwnProcess::Mounts(Vec::new())));
        assert_eq!(of(&["hakobi", "disk-process"]), Some(OwnProcess::Disk));
        assert_eq!((of(&["hakobi", "build", "mount-process"]), of(&["mount-process"]), of(&[])), (None, None, None));
    }
}
