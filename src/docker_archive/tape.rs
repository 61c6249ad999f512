//! A tar as it streams by: one entry after another, each read, or passed over, before the next.
//!
//! The parser is its own, as the `tar` crate's reads extended headers of any size into memory, and needs a thread that
//! cannot be cancelled. Like Docker's, it takes names and sizes from GNU's and pax's extensions, and nothing else.

use std::borrow::Cow;

use tokio::io::AsyncReadExt;

use super::body::{Body, Source};
use super::error::{Error, Result};
use super::format::{BLOCK, checksum_fits};
use super::names;
use super::pax::{Extended, sparse};
use crate::domain::Digest;
use crate::transfer::ByteStream;

/// Most entries taken.
const ENTRIES_LIMIT: u64 = 100_000;

/// Largest extended header or long name, in bytes; Go's reader, and with it Docker's, has the same limit.
const EXTENDED_LIMIT: u64 = 1 << 20;

/// Bytes behind the end that are read, so that a compressed archive's own checksum is met and a pipe's writer is not cut off.
const TRAILING_LIMIT: u64 = 64 << 20;

/// An entry of interest: others, like directories and devices, are passed over.
pub(super) struct Entry {
    /// Normal, not empty.
    pub(super) path: String,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    /// A regular file.
    File(Body),
    /// The same as another entry.
    Link(String),
}

/// The archive.
pub(super) struct Tape {
    source: Source,
    entries: u64,
}

impl Tape {
    /// The tar that this is, uncompressed.
    pub(super) fn new(from: ByteStream) -> Self {
        Self { source: Source::new(from), entries: 0 }
    }

    /// What was wrong with the archive when its last body broke off, if anything was.
    pub(super) fn fault(&self) -> Option<Error> {
        self.source.fault()
    }

    /// The next entry; before, what is left of the last one is read and verified.
    ///
    /// # Errors
    /// If the archive breaks off, is damaged, or has what no archive of images has.
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
            // These have no bytes whatever their size says (Go's `isHeaderOnlyType`).
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

    /// Reads what is left behind the end.
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

    /// The next header; `None` at the end. An archive may end without its mark, as Go's reader has it too: what is missing
    /// then is found missing.
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

    /// The bytes of an extended header.
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

    /// Reads what is left of the current entry.
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
