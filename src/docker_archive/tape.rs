//! Reads a tar from a stream, one entry after another. It reads or skips each entry before the next.
//!
//! hakobi has its own parser: the `tar` crate reads extended headers of any size into memory, and needs a thread that cannot be
//! cancelled. Like Docker's parser, it reads only names and sizes from GNU's and pax's extensions.

use std::borrow::Cow;

use tokio::io::AsyncReadExt;

use super::body::{Body, Source};
use super::error::{Error, Result};
use super::format::{BLOCK, checksum_fits};
use super::names;
use super::pax::{Extended, sparse};
use crate::domain::Digest;
use crate::transfer::ByteStream;

/// The maximum number of entries.
const ENTRIES_LIMIT: u64 = 100_000;

/// The maximum size of an extended header or long name, in bytes. Go's reader, and thus Docker's, has the same limit.
const EXTENDED_LIMIT: u64 = 1 << 20;

/// The maximum number of bytes read after the end. Reading them verifies a compressed archive's own checksum, and lets a pipe's
/// writer finish.
const TRAILING_LIMIT: u64 = 64 << 20;

/// A relevant entry: the tape skips others, like directories and devices.
pub(super) struct Entry {
    /// The normal name, never empty.
    pub(super) path: String,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    /// A regular file.
    File(Body),
    /// A link to another entry.
    Link(String),
}

/// The archive.
pub(super) struct Tape {
    source: Source,
    entries: u64,
}

impl Tape {
    /// Starts to read an uncompressed tar.
    pub(super) fn new(from: ByteStream) -> Self {
        Self { source: Source::new(from), entries: 0 }
    }

    /// Returns the archive's error if its last body broke off. Returns `None` if there was none.
    pub(super) fn fault(&self) -> Option<Error> {
        self.source.fault()
    }

    /// Returns the next entry, or `None` at the end. First reads and verifies the rest of the last entry.
    ///
    /// # Errors
    /// If the archive breaks off, is damaged, or contains an entry that no archive of images has.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>> {
        let mut extended = Extended::default();
        loop {
            self.pass().await?;
            let Some(header) = self.header().await? else { return Ok(None) };
            self.entries += 1;
            if self.entries > ENTRIES_LIMIT {
                return Err(Error::malformed(format!("the archive has more than {ENTRIES_LIMIT} entries")));
            }
            let own_size = header
                .entry_size()
                .map_err(|_| Error::malformed("the archive is damaged: the size of an entry is not a number"))?;
            let kind = header.entry_type();
            if kind.is_pax_local_extensions() {
                extended.take(&self.extension(own_size).await?)?;
                continue;
            }
            if kind.is_gnu_longname() || kind.is_gnu_longlink() {
                let mut name = self.extension(own_size).await?;
                name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
                let told = if kind.is_gnu_longname() { &mut extended.path } else { &mut extended.link };
                *told = Some(name);
                continue;
            }
            let told = std::mem::take(&mut extended);
            if kind.is_pax_global_extensions() {
                self.source.begin("a global header", own_size, None)?;
                continue;
            }
            if kind.is_gnu_sparse() {
                return Err(sparse());
            }
            let path = names::normal(told.path.as_deref().unwrap_or(&header.path_bytes()))?;
            let link = told.link.or_else(|| header.link_name_bytes().map(Cow::into_owned)).unwrap_or_default();
            if kind.is_symlink() || kind.is_hard_link() {
                let to = if kind.is_symlink() { names::linked(&path, &link)? } else { names::normal(&link)? };
                self.source.begin(&path, 0, None)?;
                return Ok(Some(Entry { path, kind: Kind::Link(to) }));
            }
            // These have no bytes, whatever their size is (Go's `isHeaderOnlyType`).
            let empty = kind.is_dir() || kind.is_fifo() || kind.is_block_special() || kind.is_character_special();
            let size = if empty { 0 } else { told.size.unwrap_or(own_size) };
            let digest = path.strip_prefix("blobs/sha256/").and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
            let regular = kind.is_file() || kind.is_contiguous();
            let body = self.source.begin(&path, size, digest.filter(|_| regular))?;
            if regular && !path.is_empty() {
                return Ok(Some(Entry { path, kind: Kind::File(body) }));
            }
        }
    }

    /// Reads the bytes after the end.
    ///
    /// # Errors
    /// If the archive's compression is damaged.
    pub(super) async fn finish(self) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let mut left = TRAILING_LIMIT;
        loop {
            let read = self.source.read(&mut buffer).await?;
            left = left.saturating_sub(read as u64);
            if read == 0 || left == 0 {
                return Ok(());
            }
        }
    }

    /// Returns the next header, or `None` at the end. An archive may end without its end mark, as in Go's reader: hakobi then finds
    /// which entries are missing.
    async fn header(&self) -> Result<Option<tar::Header>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]).await? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(Error::malformed("the archive ends in the middle of a header")),
                read => filled += read,
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if !checksum_fits(&block) {
            return Err(Error::malformed("the archive is damaged: the checksum of an entry's header does not match"));
        }
        Ok(Some(tar::Header::from_byte_slice(&block).clone()))
    }

    /// Returns the bytes of an extended header.
    async fn extension(&self, size: u64) -> Result<Vec<u8>> {
        if size > EXTENDED_LIMIT {
            return Err(Error::malformed(format!(
                "the archive has an extended header of {size} bytes; the limit is {EXTENDED_LIMIT}"
            )));
        }
        let mut bytes = Vec::new();
        let read = self.source.begin("an extended header", size, None)?.read_to_end(&mut bytes).await;
        read.map_err(|error| self.fault().unwrap_or(Error::Read(error)))?;
        Ok(bytes)
    }

    /// Reads the rest of the current entry.
    async fn pass(&self) -> Result<()> {
        let mut rest = self.source.rest();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match rest.read(&mut buffer).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(self.fault().unwrap_or(Error::Read(error))),
            }
        }
        let mut padding = self.source.take_padding();
        while padding > 0 {
            match self.source.read(&mut buffer[..padding]).await? {
                0 => return Err(self.source.cut_off()),
                read => padding -= read,
            }
        }
        Ok(())
    }
}
