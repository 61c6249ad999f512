//! The hidden command `hakobi mount-process DIR…`, with which hakobi calls itself in a container with cache mounts. clap does not know
//! it, so it is in no help, completion or manual page, and starts at once.

use std::ffi::OsString;
use std::path::PathBuf;

/// The command.
const NAME: &str = "mount-process";

/// Returns the arguments of the command. Returns `None` for all other commands.
pub fn directories(args: impl IntoIterator<Item = OsString>) -> Option<Vec<PathBuf>> {
    let mut args = args.into_iter().skip(1);
    let command = args.next()?;
    (command == NAME).then(|| args.map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_argument_is_the_command() {
        let of = |args: &[&str]| directories(args.iter().map(Into::into));
        assert_eq!(of(&["/hakobi", "mount-process", "/a", "/b"]), Some(vec!["/a".into(), "/b".into()]));
        assert_eq!(of(&["hakobi", "mount-process"]), Some(Vec::new()));
        assert_eq!((of(&["hakobi", "build", "mount-process"]), of(&["mount-process"]), of(&[])), (None, None, None));
    }
}
