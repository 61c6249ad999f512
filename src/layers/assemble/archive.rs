//! Decides whether a file may be an archive, which `ADD` unpacks: one that decompresses to a tar header (`file/unpack.go`).

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// How many bytes at the start of a file decide, including a tar's header.
pub(in crate::layers) const HEAD: usize = 512;

/// The magic bytes of compressed files, of all versions of Docker's `archive` package: gzip, bzip2, xz and zstd.
const COMPRESSED: [&[u8]; 4] = [&[0x1f, 0x8b], b"BZh", &[0xfd, b'7', b'z', b'X', b'Z'], &[0x28, 0xb5, 0x2f, 0xfd]];

/// The position of the checksum in a tar's header.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// Returns whether BuildKit may unpack a file that begins with these bytes. It does not unpack all of these.
pub(in crate::layers) fn may_be_archive(head: &[u8]) -> bool {
    let skippable = matches!(head, [first, 0x2a, 0x4d, 0x18, ..] if first & 0xf0 == 0x50);
    skippable || COMPRESSED.iter().any(|magic| head.starts_with(magic)) || is_header(head)
}

/// Returns [`may_be_archive`] for a file.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn is_file_archive(path: &Path) -> io::Result<bool> {
    let mut head = Vec::with_capacity(HEAD);
    File::open(path)?.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(may_be_archive(&head))
}

/// Returns whether a block is a header with a correct checksum. A block of zeros ends an archive and does not begin one.
fn is_header(head: &[u8]) -> bool {
    let Some(block) = head.get(..HEAD) else { return false };
    let sum = |signed: bool| -> i64 {
        let value = |byte: u8| if signed { i64::from(byte.cast_signed()) } else { i64::from(byte) };
        block.iter().enumerate().map(|(at, byte)| value(if CHECKSUM.contains(&at) { b' ' } else { *byte })).sum()
    };
    let digits =
        block[CHECKSUM].iter().skip_while(|byte| matches!(byte, b' ' | 0)).take_while(|byte| (b'0'..=b'7').contains(*byte));
    let said = digits.fold(0, |said: i64, digit| said * 8 + i64::from(digit - b'0'));
    said == sum(false) || said == sum(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_their_first_bytes() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        tar.append_data(&mut header, "a", &b""[..]).unwrap();
        let tar = tar.into_inner().unwrap();
        let mut broken = tar.clone();
        broken[0] = b'b';
        for (bytes, may) in [
            (&b""[..], false),
            (b"text", false),
            (b"BZ", false),
            (b"BZh9", true),
            (&[0x1f, 0x8b, 8], true),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], true),
            (&[0x28, 0xb5, 0x2f, 0xfd, 0], true),
            (&[0x5a, 0x2a, 0x4d, 0x18], true),
            (&[0; 1024], false),
            (&tar[..512], true),
            (&tar[..511], false),
            (&broken, false),
        ] {
            assert_eq!(may_be_archive(bytes), may, "{:?}", &bytes[..bytes.len().min(8)]);
        }
    }
}
