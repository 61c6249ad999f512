//! hakobi itself as a program for a container that has nothing else.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::domain::Hasher;
use crate::transfer::Scratch;

/// How many bytes are copied at once.
const BUFFER: usize = 1 << 20;

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
        let own = bring_program(Path::new("/proc/self/exe"), root)?;
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
        command.push(format!("/{own}"));
        Ok(Self { directory, command })
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Copies a program under a name that says what it is, and returns that. A daemon that has a file with this name, size and time takes it
/// for the same file, and does not fetch it again.
fn bring_program(from: &Path, root: &Path) -> io::Result<String> {
    let partial = root.join("hakobi");
    let (mut source, mut copy) = (File::open(from)?, File::create(&partial)?);
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        let part = match source.read(&mut buffer)? {
            0 => break,
            length => buffer.get(..length).unwrap_or_default(),
        };
        hasher.update(part);
        copy.write_all(part)?;
    }
    copy.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1))?;
    let name = format!("hakobi-{}", hasher.digest().hex().get(..16).unwrap_or_default());
    fs::rename(&partial, root.join(&name))?;
    make_executable(&root.join(&name))?;
    Ok(name)
}

/// Copies a library with its time, for the same reason.
fn bring(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    make_executable(to)?;
    File::options().write(true).open(to)?.set_modified(fs::metadata(from)?.modified()?)
}

fn make_executable(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
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

    #[test]
    fn the_same_program_has_the_same_name_and_time() {
        let directories = [(), ()].map(|()| tempfile::tempdir().unwrap());
        let source = directories[0].path().join("source");
        fs::write(&source, "program").unwrap();
        let mut copies = directories.iter().map(|directory| {
            let name = bring_program(&source, directory.path()).unwrap();
            let copy = fs::metadata(directory.path().join(&name)).unwrap();
            (name, copy.len(), copy.modified().unwrap())
        });
        assert_eq!(copies.next(), copies.next());
        fs::write(&source, "another").unwrap();
        let other = bring_program(&source, directories[1].path()).unwrap();
        assert!(!directories[0].path().join(other).exists());
    }
}
