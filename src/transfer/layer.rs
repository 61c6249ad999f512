//! Reads a layer's tar as a stream. Each entry has the same names as in Go's reader, and so in Docker.
//!
//! The reader of the `tar` crate splits extended headers at line ends, although names and attribute values may contain them too.

use std::io::{self, Read};

/// The number of bytes in a block.
const BLOCK: usize = 512;

/// The largest extended header or long name, in bytes, as in Go's reader.
const EXTENDED_LIMIT: u64 = 1 << 20;

/// The prefix of extended attributes' names.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// The positions of the owner and the group in a header.
const UID: std::ops::Range<usize> = 108..116;
const GID: std::ops::Range<usize> = 116..124;

/// An entry.
#[derive(Debug, Clone)]
pub struct LayerEntry {
    /// The path, verbatim.
    pub path: Vec<u8>,
    /// The target of a link, verbatim. Empty if the entry is no link.
    pub link: Vec<u8>,
    /// The extended attributes, by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The number of bytes that follow.
    pub size: u64,
    /// Whether the entry is sparse: its bytes are the parts of the file, with their positions.
    pub sparse: bool,
    /// The header, for all other fields.
    pub header: tar::Header,
    /// The owner and the group.
    pub owner: (u64, u64),
}

/// The entries of a layer's tar.
pub struct LayerEntries<R> {
    from: R,
    /// The unread bytes of the last entry, and the padding of its last block.
    left: u64,
    padding: u64,
}

#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    owner: (Option<u64>, Option<u64>),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: bool,
}

impl<R: Read> LayerEntries<R> {
    /// Reads an uncompressed tar.
    pub fn new(from: R) -> Self {
        Self { from, left: 0, padding: 0 }
    }

    /// Returns the next entry, and skips the unread bytes of the last one. Returns `None` at the end.
    ///
    /// # Errors
    /// If the tar is damaged or not readable.
    pub fn next_entry(&mut self) -> io::Result<Option<LayerEntry>> {
        let mut extended = Extended::default();
        loop {
            self.pass_over()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let kind = header.entry_type();
            let size = header.entry_size()?;
            if kind.is_pax_local_extensions() {
                extended.take(&self.extension(size)?)?;
                continue;
            }
            if kind.is_gnu_longname() || kind.is_gnu_longlink() {
                let mut name = self.extension(size)?;
                name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
                let told = if kind.is_gnu_longname() { &mut extended.path } else { &mut extended.link };
                *told = Some(name);
                continue;
            }
            let told = std::mem::take(&mut extended);
            // Docker also skips headers of the archive itself.
            if kind.is_pax_global_extensions() {
                self.begin(size)?;
                continue;
            }
            let mut parts_follow = header.as_gnu().is_some_and(|gnu| kind.is_gnu_sparse() && gnu.is_extended());
            while parts_follow {
                let mut block = [0; BLOCK];
                self.from.read_exact(&mut block)?;
                // The field `isextended` in a block of parts.
                parts_follow = block[504] == 1;
            }
            // These kinds have no content, whatever their size is (Go's `isHeaderOnlyType`).
            let empty = matches!(
                kind,
                tar::EntryType::Link
                    | tar::EntryType::Symlink
                    | tar::EntryType::Char
                    | tar::EntryType::Block
                    | tar::EntryType::Directory
                    | tar::EntryType::Fifo
            );
            let size = if empty { 0 } else { told.size.unwrap_or(size) };
            self.begin(size)?;
            return Ok(Some(LayerEntry {
                path: told.path.unwrap_or_else(|| header.path_bytes().into_owned()),
                link: told.link.or_else(|| header.link_name_bytes().map(|link| link.into_owned())).unwrap_or_default(),
                xattrs: told.xattrs,
                size,
                sparse: told.sparse || kind.is_gnu_sparse(),
                owner: (
                    told.owner.0.map_or_else(|| number(&header, UID), Ok)?,
                    told.owner.1.map_or_else(|| number(&header, GID), Ok)?,
                ),
                header,
            }));
        }
    }

    fn begin(&mut self, size: u64) -> io::Result<()> {
        // Go's reader has the same limit.
        if i64::try_from(size).is_err() {
            return Err(io::Error::other(format!("the tar has an entry of {size} bytes")));
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn pass_over(&mut self) -> io::Result<()> {
        let (rest, padding) = (std::mem::take(&mut self.left), std::mem::take(&mut self.padding));
        let passed = io::copy(&mut (&mut self.from).take(rest + padding), &mut io::sink())?;
        // The padding of the last block may be missing.
        if passed < rest { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > EXTENDED_LIMIT {
            return Err(io::Error::other("the tar has an extended header that is too large"));
        }
        self.begin(size)?;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        if self.left > 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
    }

    /// Returns the next header. Returns `None` at the end, even without an end marker, as in Go's reader.
    fn header(&mut self) -> io::Result<Option<tar::Header>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.from.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = tar::Header::from_byte_slice(&block).clone();
        let sum = |signed: bool| -> i64 {
            let byte = |(place, byte): (usize, &u8)| match place {
                148..156 => i64::from(b' '),
                _ if signed => i64::from(byte.cast_signed()),
                _ => i64::from(*byte),
            };
            block.iter().enumerate().map(byte).sum()
        };
        let said = i64::from(header.cksum()?);
        if said == sum(false) || said == sum(true) {
            Ok(Some(header))
        } else {
            Err(io::Error::other("the tar is damaged: the checksum of a header is wrong"))
        }
    }
}

/// Parses a number of a header. A blank field is 0, as in Go's reader.
fn number(header: &tar::Header, field: std::ops::Range<usize>) -> io::Result<u64> {
    let blank = header.as_bytes()[field.clone()].iter().all(|byte| matches!(byte, 0 | b' '));
    match field == UID {
        _ if blank => Ok(0),
        true => header.uid(),
        false => header.gid(),
    }
}

/// Reads the bytes of the last entry.
impl<R: Read> Read for LayerEntries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.from.read(&mut buffer[..room])?;
        self.left -= read as u64;
        if read == 0 && room > 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(read) }
    }
}

impl Extended {
    /// Parses the records of one extended header by their lengths.
    fn take(&mut self, mut records: &[u8]) -> io::Result<()> {
        let malformed = || io::Error::other("the tar has a malformed extended header");
        let number = |value: &[u8]| std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
        while !records.is_empty() {
            let space = records.iter().take(20).position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let length = number(&records[..space]).and_then(|length| usize::try_from(length).ok()).ok_or_else(malformed)?;
            let record = records.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                // An empty value removes an earlier one (POSIX pax, "pax Extended Header").
                b"path" => self.path = Some(value.to_owned()).filter(|path| !path.is_empty()),
                b"linkpath" => self.link = Some(value.to_owned()).filter(|link| !link.is_empty()),
                b"size" => self.size = Some(number(value).ok_or_else(malformed)?),
                b"uid" => self.owner.0 = Some(number(value).ok_or_else(malformed)?),
                b"gid" => self.owner.1 = Some(number(value).ok_or_else(malformed)?),
                b"GNU.sparse.name" => (self.path, self.sparse) = (Some(value.to_owned()), true),
                key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                key => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        self.xattrs.push((name.to_owned(), value.to_owned()));
                    }
                }
            }
            records = &records[length..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: tar::EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(size);
        header.set_cksum();
        header
    }

    #[test]
    fn names_and_attributes_may_hold_any_byte() {
        let long = [b"d/\xe9\nx=\xff".as_slice(), &[b'y'; 200]].concat();
        let mut tar = tar::Builder::new(Vec::new());
        let records = [("path", &*long), ("SCHILY.xattr.security.capability", b"\x01\n\x00".as_slice()), ("uid", b"3000000")];
        tar.append_pax_extensions(records).unwrap();
        tar.append(&header(tar::EntryType::Regular, 3), &b"abc"[..]).unwrap();
        tar.append_pax_extensions([("linkpath", b"\n\xe9".as_slice())]).unwrap();
        tar.append(&header(tar::EntryType::Symlink, 0), io::empty()).unwrap();
        let bytes = tar.into_inner().unwrap();
        let mut entries = LayerEntries::new(&bytes[..]);
        let first = entries.next_entry().unwrap().unwrap();
        assert_eq!((&first.path, first.size, first.owner), (&long, 3, (3_000_000, 0)));
        assert_eq!(first.xattrs, [(b"security.capability".to_vec(), b"\x01\n\x00".to_vec())]);
        let mut text = String::new();
        entries.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        let second = entries.next_entry().unwrap().unwrap();
        assert_eq!((second.header.entry_type(), &*second.link), (tar::EntryType::Symlink, &b"\n\xe9"[..]));
        assert!(entries.next_entry().unwrap().is_none());
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_refused() {
        let mut tar = tar::Builder::new(Vec::new());
        tar.append(&header(tar::EntryType::Regular, 600), &[1; 600][..]).unwrap();
        let bytes = tar.into_inner().unwrap();
        let read = |bytes: &[u8]| {
            let mut entries = LayerEntries::new(bytes);
            while entries.next_entry()?.is_some() {}
            io::Result::Ok(())
        };
        assert!(read(&bytes).is_ok());
        assert!(read(&bytes[..BLOCK + 600]).is_ok(), "an archive may end without its mark");
        for cut in [1, BLOCK - 1, BLOCK + 1, BLOCK + 599] {
            assert!(read(&bytes[..cut]).is_err(), "{cut}");
        }
        let mut damaged = bytes.clone();
        damaged[0] ^= 1;
        assert!(read(&damaged).is_err());
        assert!(read(header(tar::EntryType::Regular, u64::MAX).as_bytes()).is_err(), "more than any file has");
        for records in ["x", "5 a=b\n", "7 a=b\n", "6 a=b\nx", "0 a=b\n", "10 size=x\n", "99999999999999999999 path=a\n"] {
            assert!(Extended::default().take(records.as_bytes()).is_err(), "{records}");
        }
    }
}
