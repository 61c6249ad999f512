//! Writes the tar of a layer. The same entries, files and times give the same bytes on every machine.

use std::fs::File;
use std::io::{self, Read, Write};

use super::archive::{HEAD, may_be_archive};
use super::differ::tar_name;
use super::layer::{AssembledEntry, AssembledKind, AssembledLayer, Content};
use crate::build_context::Difference;
use crate::domain::{Digest, Hasher, bytes_of};

/// Longest name in a plain header, in bytes.
const NAME: usize = 100;

/// Largest owner and largest size in a plain header.
const OWNER: u32 = 0o7_777_777;
const SIZE: u64 = 0o77_777_777_777;

/// The mode of a whiteout, as Docker writes it.
const WHITEOUT: u32 = 0o600;

/// Why there is no tar of a layer.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file changed.
    #[error("{0}")]
    Moved(Difference),
    /// The tar could not be written.
    #[error(transparent)]
    Out(#[from] io::Error),
}

impl AssembledLayer {
    /// Writes the layer's tar. `now` is the time of entries without their own, in seconds of the Unix epoch. It reads each file of
    /// a source once, whatever its size. It passes the digest to `hashed` with the number of the input and the path, and the caller
    /// must compare it.
    ///
    /// # Errors
    /// If a file is not readable any more, has another size, or has become an archive; or if `out` fails.
    pub fn write_tar(&self, out: impl Write, now: u64, hashed: &mut dyn FnMut(usize, &str, &Digest)) -> Result<(), WriteError> {
        let mut differs = None;
        self.write_files(out, now, hashed, &mut differs).map_err(|error| match differs {
            Some(difference) => WriteError::Moved(difference),
            None => WriteError::Out(error),
        })
    }

    fn write_files(
        &self,
        out: impl Write,
        now: u64,
        hashed: &mut dyn FnMut(usize, &str, &Digest),
        differs: &mut Option<Difference>,
    ) -> io::Result<()> {
        let mut tar = tar::Builder::new(out);
        for (path, entry) in self.entries() {
            let mut header = tar::Header::new_ustar();
            let (kind, size, target) = match &entry.kind {
                AssembledKind::File(Content::Context { size, .. }) => (tar::EntryType::Regular, *size, None),
                AssembledKind::File(Content::Bytes(bytes)) => (tar::EntryType::Regular, bytes.len() as u64, None),
                AssembledKind::HardLink(first) => (tar::EntryType::Link, 0, Some(&**first)),
                AssembledKind::Directory => (tar::EntryType::Directory, 0, None),
                AssembledKind::Link(target) => (tar::EntryType::Symlink, 0, Some(&**target)),
                AssembledKind::Whiteout => (tar::EntryType::Regular, 0, None),
            };
            header.set_entry_type(kind);
            header.set_mode(if entry.kind == AssembledKind::Whiteout { WHITEOUT } else { entry.mode });
            header.set_mtime(entry.modified.unwrap_or(now));
            header.set_uid(entry.owner.0.into());
            header.set_gid(entry.owner.1.into());
            header.set_size(size);
            let mut name = tar_name(path, &entry.kind);
            if entry.kind == AssembledKind::Directory {
                name.push('/');
            }
            let extensions = extensions(&name, target, entry, size);
            tar.append_pax_extensions(extensions.iter().map(|(key, value)| (*key, &**value)))?;
            let fields = header.as_ustar_mut().ok_or_else(|| io::Error::other("it is not a ustar header"))?;
            fill(&mut fields.name, &bytes_of(&name));
            fill(&mut fields.linkname, &bytes_of(target.unwrap_or_default()));
            header.set_cksum();
            match &entry.kind {
                AssembledKind::File(Content::Context { source, path, file, plain, .. }) => {
                    let mut reader = Checked::open(file, path, size, *plain, differs)?;
                    tar.append(&header, &mut reader)?;
                    hashed(*source, path, &reader.finish()?);
                }
                AssembledKind::File(Content::Bytes(bytes)) => tar.append(&header, &bytes[..])?,
                _ => tar.append(&header, io::empty())?,
            }
        }
        tar.into_inner()?.flush()
    }
}

/// Returns the values that do not fit into a plain header, in order.
fn extensions<'a>(name: &'a str, target: Option<&'a str>, entry: &'a AssembledEntry, size: u64) -> Vec<(&'static str, Vec<u8>)> {
    let is_plain = |text: &str| text.len() <= NAME && text.is_ascii();
    let mut out = Vec::new();
    if !is_plain(name) {
        out.push(("path", bytes_of(name).into_owned()));
    }
    if let Some(target) = target.filter(|target| !is_plain(target)) {
        out.push(("linkpath", bytes_of(target).into_owned()));
    }
    for (key, number, largest) in [
        ("uid", u64::from(entry.owner.0), u64::from(OWNER)),
        ("gid", u64::from(entry.owner.1), u64::from(OWNER)),
        ("size", size, SIZE),
    ] {
        if number > largest {
            out.push((key, number.to_string().into_bytes()));
        }
    }
    if let Some(capability) = &entry.capability {
        out.push(("SCHILY.xattr.security.capability", capability.clone()));
    }
    out
}

/// Copies as many bytes as fit: an extension has the full name.
fn fill(field: &mut [u8], name: &[u8]) {
    let size = name.len().min(field.len());
    field[..size].copy_from_slice(&name[..size]);
}

/// A file that must still be as it was found.
struct Checked<'a> {
    file: File,
    path: &'a str,
    /// The difference, once it is found.
    differs: &'a mut Option<Difference>,
    left: u64,
    hasher: Hasher,
    /// The first bytes of a file that must not have become an archive.
    head: Option<Vec<u8>>,
}

impl<'a> Checked<'a> {
    fn open(
        file: &std::path::Path,
        path: &'a str,
        size: u64,
        plain: bool,
        differs: &'a mut Option<Difference>,
    ) -> io::Result<Self> {
        match File::open(file) {
            Ok(file) => Ok(Self { file, path, differs, left: size, hasher: Hasher::default(), head: plain.then(Vec::new) }),
            Err(error) => {
                *differs = Some(Difference::at(path, "it is no longer readable"));
                Err(error)
            }
        }
    }

    fn changed(&mut self) -> io::Error {
        *self.differs = Some(Difference::of_content(self.path));
        io::Error::other("it changed while hakobi read it")
    }

    fn finish(mut self) -> io::Result<Digest> {
        if self.left > 0 || self.file.read(&mut [0])? > 0 || self.head.as_ref().is_some_and(|head| may_be_archive(head)) {
            return Err(self.changed());
        }
        Ok(self.hasher.digest())
    }
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let read = match self.file.read(&mut buffer[..room]) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                *self.differs = Some(Difference::at(self.path, "it is no longer readable"));
                return Err(error);
            }
            read => read?,
        };
        if read == 0 {
            return Err(self.changed());
        }
        self.left -= read as u64;
        self.hasher.update(&buffer[..read]);
        if let Some(head) = &mut self.head {
            let missing = HEAD.saturating_sub(head.len()).min(read);
            head.extend_from_slice(&buffer[..missing]);
        }
        Ok(read)
    }
}
