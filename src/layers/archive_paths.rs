//! Lists the paths in an archive that `ADD` would unpack, so that a skeleton has the paths that these touch.
//!
//! The daemon decides whether it unpacks a file. Here, a file counts as an archive if it may be one: additional paths do no harm.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::assemble::{HEAD, may_be_archive};
use super::paths::cleaned;
use super::routes::UnknownPaths;
use crate::domain::{Digest, Hasher, shown, spelled};
use crate::transfer::LayerEntries;

/// Most paths of one archive.
const MOST: usize = 200_000;

/// A path in an archive, relative to the directory where it is unpacked, without a leading `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivePath {
    /// The path.
    pub path: String,
    /// The target of a symbolic link.
    pub link: Option<String>,
    /// The path that this hard link is another name of.
    pub same: Option<String>,
}

/// Lists the paths in a file that `ADD` may unpack. Returns none if the file is no archive. `keyed` is the file's digest in the
/// step's key; `name` is for messages.
///
/// # Errors
/// If the file is an archive whose paths cannot be read, or if its content differs from the digest.
pub fn archive_paths(file: &Path, name: &str, keyed: &Digest) -> Result<Vec<ArchivePath>, UnknownPaths> {
    let unreadable = |error: io::Error| UnknownPaths(format!("failed to read {}: {error}", shown(name)));
    let mut hashed = Hashed { file: File::open(file).map_err(unreadable)?, hasher: Hasher::default() };
    let mut head = Vec::with_capacity(HEAD);
    hashed.by_ref().take(HEAD as u64).read_to_end(&mut head).map_err(unreadable)?;
    let is_archive = may_be_archive(&head);
    let paths = if is_archive { listed(&head, &mut hashed, name) } else { Ok(Vec::new()) };
    io::copy(&mut hashed, &mut io::sink()).map_err(unreadable)?;
    if hashed.hasher.digest() != *keyed {
        return Err(UnknownPaths(format!("{} changed while hakobi read it", shown(name))));
    }
    paths
}

fn listed(head: &[u8], rest: &mut impl Read, name: &str) -> Result<Vec<ArchivePath>, UnknownPaths> {
    let whole = head.chain(rest);
    if head.starts_with(&[0x1f, 0x8b]) {
        return entries_if_any(flate2::read::MultiGzDecoder::new(whole), name);
    }
    let is_skippable = matches!(head, [first, 0x2a, 0x4d, 0x18, ..] if first & 0xf0 == 0x50);
    if is_skippable || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = zstd::stream::read::Decoder::new(whole);
        return entries_if_any(decoder.map_err(|error| UnknownPaths(format!("failed to read {}: {error}", shown(name))))?, name);
    }
    if head.starts_with(b"BZh") || head.starts_with(&[0xfd, b'7', b'z', b'X', b'Z']) {
        return Err(UnknownPaths(format!(
            "hakobi cannot list the archive {}: it supports only uncompressed, gzip and zstd archives",
            shown(name)
        )));
    }
    entries(whole, name)
}

/// Lists the paths in decompressed bytes. Returns none if they do not begin like an archive.
fn entries_if_any(mut plain: impl Read, name: &str) -> Result<Vec<ArchivePath>, UnknownPaths> {
    let mut head = Vec::with_capacity(HEAD);
    // If the daemon cannot decompress a file, it copies the file instead.
    if plain.by_ref().take(HEAD as u64).read_to_end(&mut head).is_err() || !may_be_archive(&head) {
        return Ok(Vec::new());
    }
    entries(head.chain(plain), name)
}

fn entries(tar: impl Read, name: &str) -> Result<Vec<ArchivePath>, UnknownPaths> {
    let mut found = Vec::new();
    let read = |found: &mut Vec<ArchivePath>| -> io::Result<()> {
        let mut entries = LayerEntries::new(tar);
        while let Some(entry) = entries.next_entry()? {
            let (link, same) = match entry.header.entry_type() {
                tar::EntryType::Symlink => (Some(spelled(&entry.link)), None),
                tar::EntryType::Link => (None, Some(cleaned(&spelled(&entry.link))?)),
                tar::EntryType::XGlobalHeader => continue,
                _ => (None, None),
            };
            if found.len() == MOST {
                return Err(io::Error::other(format!("it has more than {MOST} paths")));
            }
            found.push(ArchivePath { path: cleaned(&spelled(&entry.path))?, link, same });
        }
        Ok(())
    };
    match read(&mut found) {
        Ok(()) => Ok(found),
        Err(error) => Err(UnknownPaths(format!("failed to list the archive {}: {error}", shown(name)))),
    }
}

/// A file that is hashed while it is read.
struct Hashed {
    file: File,
    hasher: Hasher,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        archive.append_data(&mut header, "a/./b", &b"1"[..]).unwrap();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Symlink);
        archive.append_link(&mut header, "link", "../x").unwrap();
        header.set_entry_type(tar::EntryType::Link);
        archive.append_link(&mut header, "hard", "./a/b").unwrap();
        archive.into_inner().unwrap()
    }

    fn of(bytes: &[u8]) -> Result<Vec<ArchivePath>, UnknownPaths> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        archive_paths(file.path(), "it", &Digest::hash(bytes))
    }

    #[test]
    fn the_paths_of_an_archive_are_listed() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &archive()).unwrap();
        for bytes in [archive(), gzip.finish().unwrap(), zstd::encode_all(&archive()[..], 1).unwrap()] {
            let found = of(&bytes).unwrap();
            let paths: Vec<&str> = found.iter().map(|archive_paths| &*archive_paths.path).collect();
            assert_eq!(paths, ["a/b", "link", "hard"]);
            assert_eq!((found[1].link.as_deref(), found[2].same.as_deref()), (Some("../x"), Some("a/b")));
        }
    }

    #[test]
    fn what_is_no_archive_has_no_paths() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, b"text").unwrap();
        for bytes in [b"text".to_vec(), Vec::new(), gzip.finish().unwrap(), vec![0x1f, 0x8b, 9, 9]] {
            assert_eq!(of(&bytes), Ok(Vec::new()));
        }
    }

    #[test]
    fn what_cannot_be_listed_is_told() {
        assert!(of(b"BZh91AY").unwrap_err().0.contains("uncompressed, gzip and zstd"));
        let broken = &archive()[..1100];
        assert!(of(broken).unwrap_err().0.contains("failed to list the archive it"));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(
            archive_paths(file.path(), "it", &Digest::hash(b"other")).unwrap_err().0.contains("changed while hakobi read it")
        );
    }
}
