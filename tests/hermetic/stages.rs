//! Prepares worlds in which the next build has a certain tier, so that tests can add faults to it.

use std::path::Path;

use crate::world::World;

/// The next build without a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Cold,
    Unchanged,
    /// hakobi itself appends the layers.
    Append,
    /// The daemon appends the layers to a skeleton.
    Skeleton,
    Partial,
    /// A stage must run before hakobi knows which other steps must run.
    Observed,
}

pub const ALL: [Next; 6] = [Next::Cold, Next::Unchanged, Next::Append, Next::Skeleton, Next::Partial, Next::Observed];

const FILES: &str = "FROM BASE\nRUN sum /deps\nCOPY src /app/src\n";
const COMMAND: &str = "FROM BASE\nRUN sum /deps\nCOPY src /app/src\nRUN sum /built\n";
const STAGES: &str =
    "FROM BASE AS build\nCOPY src /src\nRUN compile /src /out/app\nFROM BASE\nCOPY --from=build /out /app/\nRUN sum /built\n";

impl Next {
    /// Returns the tier in the report.
    pub fn tier(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Unchanged => "unchanged",
            Self::Append | Self::Skeleton => "append",
            Self::Partial | Self::Observed => "partial",
        }
    }

    /// Returns whether the build needs a daemon.
    pub fn asks_daemon(self) -> bool {
        !matches!(self, Self::Unchanged | Self::Append)
    }

    /// Returns the world before that build. Its daemon is empty.
    pub fn world(self) -> World {
        self.world_with(|world| world)
    }

    /// The same, in a world that `prepare` changes before its first build.
    pub fn world_with(self, prepare: impl FnOnce(World) -> World) -> World {
        let dockerfile = match self {
            Self::Partial | Self::Cold => COMMAND,
            Self::Unchanged | Self::Append => FILES,
            Self::Skeleton | Self::Observed => STAGES,
        };
        let world = prepare(World::new(dockerfile));
        world.write("src/main", "one\n");
        if self != Self::Cold {
            world.build(&[]);
        }
        let world = match self {
            Self::Skeleton => world.dockerfile(&STAGES.replace("/out /app/\nRUN sum /built\n", "/src /app/\n")),
            _ => world,
        };
        match self {
            Self::Append | Self::Partial => _ = world.write("src/main", "two\n"),
            Self::Observed => _ = world.write("src/main", "# a comment\none\n"),
            _ => {}
        }
        world.wiped();
        world
    }
}

/// Copies a directory.
pub fn copy_folder(from: &Path, to: &Path) {
    if !from.exists() {
        return;
    }
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy_folder(&entry.path(), &target) } else { _ = std::fs::copy(entry.path(), target).unwrap() }
    }
}
