//! Builds that go each way to their end, for the faults to come by: a world in which just that is to be done next.

use std::path::Path;

use crate::world::World;

/// What the next build comes to, where nothing goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Cold,
    Unchanged,
    /// By hakobi itself.
    Append,
    /// By the daemon, on a skeleton.
    Skeleton,
    Partial,
    /// A stage has to run before it is known what else has to.
    Observed,
}

pub const ALL: [Next; 6] = [Next::Cold, Next::Unchanged, Next::Append, Next::Skeleton, Next::Partial, Next::Observed];

const FILES: &str = "FROM BASE\nRUN sum /deps\nCOPY src /app/src\n";
const COMMAND: &str = "FROM BASE\nRUN sum /deps\nCOPY src /app/src\nRUN sum /built\n";
const STAGES: &str =
    "FROM BASE AS build\nCOPY src /src\nRUN compile /src /out/app\nFROM BASE\nCOPY --from=build /out /app/\nRUN sum /built\n";

impl Next {
    /// What the report calls it.
    pub fn tier(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Unchanged => "unchanged",
            Self::Append | Self::Skeleton => "append",
            Self::Partial | Self::Observed => "partial",
        }
    }

    /// Whether it takes a daemon.
    pub fn asks_daemon(self) -> bool {
        !matches!(self, Self::Unchanged | Self::Append)
    }

    /// The world before that build, on a machine whose daemon is empty.
    pub fn world(self) -> World {
        let dockerfile = match self {
            Self::Partial | Self::Cold => COMMAND,
            Self::Unchanged | Self::Append => FILES,
            Self::Skeleton | Self::Observed => STAGES,
        };
        let world = World::new(dockerfile);
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

/// Copies a folder as it is.
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
