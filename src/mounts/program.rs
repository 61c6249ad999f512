//! hakobi itself as a program for a container that has nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::transfer::Scratch;

/// The directory of the program's libraries in the container.
const LIBRARIES: &str = "lib";

/// A directory with hakobi and the libraries that it needs. Dropping this value removes it.
pub struct Program {
    directory: Scratch,
    /// The command in a container whose root is the directory.
    pub command: Vec<String>,
}

impl Program {
    /// Collects the running program. A statically linked one needs no library.
    ///
    /// # Errors
    /// If a file cannot be read, or there is no room in TMPDIR.
    pub fn collect() -> io::Result<Self> {
        let directory = Scratch::new()?;
        let root = directory.path();
        bring(Path::new("/proc/self/exe"), &root.join("hakobi"))?;
        let libraries = libraries(&fs::read_to_string("/proc/self/maps")?);
        let mut command = Vec::new();
        if !libraries.is_empty() {
            fs::create_dir(root.join(LIBRARIES))?;
        }
        for library in &libraries {
            let Some(name) = library.file_name().and_then(|name| name.to_str()) else { continue };
            bring(library, &root.join(LIBRARIES).join(name))?;
            if name.starts_with("ld-") || name.starts_with("ld.") {
                command = [format!("/{LIBRARIES}/{name}"), "--library-path".to_owned(), format!("/{LIBRARIES}")].to_vec();
            }
        }
        command.push("/hakobi".to_owned());
        Ok(Self { directory, command })
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn bring(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o755))
}

/// Returns the shared libraries, the loader included, that the kernel has mapped into a process.
fn libraries(maps: &str) -> BTreeSet<PathBuf> {
    let paths = maps.lines().filter_map(|line| line.split_once('/')).map(|(_, path)| Path::new("/").join(path));
    let is_library = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.ends_with(".so") || name.contains(".so.")
    };
    paths.filter(is_library).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_of_the_memory_map() {
        let maps = "55d0-55d1 r-xp 00000000 fe:00 12 /usr/bin/hakobi\n7f00-7f01 r--p 0 fe:00 3 /usr/lib/libc.so.6\n\
                    7f01-7f02 r-xp 0 fe:00 3 /usr/lib/libc.so.6\n7f03-7f04 r-xp 0 fe:00 4 /usr/lib/ld-linux-x86-64.so.2\n\
                    7ffe-7fff rw-p 0 00:00 0 [stack]\n";
        let found: Vec<_> = libraries(maps).into_iter().collect();
        assert_eq!(found, [Path::new("/usr/lib/ld-linux-x86-64.so.2"), Path::new("/usr/lib/libc.so.6")]);
        assert!(libraries("55d0-55d1 r-xp 00000000 fe:00 12 /hakobi\n").is_empty());
    }
}
