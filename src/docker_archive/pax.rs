//! Pax extended headers (POSIX pax, "pax Extended Header"): the three records with an entry's name, link and size.
//!
//! hakobi splits records by their own lengths: the values of others, like extended attributes, may contain line ends.

use super::error::{Error, Result};

/// The values of extended headers for the next entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    /// The size in bytes.
    pub(super) size: Option<u64>,
}

impl Extended {
    /// Reads the records of one extended header.
    ///
    /// # Errors
    /// If they are malformed, or describe a sparse file.
    pub(super) fn take(&mut self, mut records: &[u8]) -> Result<()> {
        let malformed = || Error::malformed("the archive has a malformed extended header");
        while !records.is_empty() {
            let space = records.iter().take(20).position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let length: usize = number(&records[..space]).ok_or_else(malformed)?;
            let record = records.get(space + 1..length).ok_or_else(malformed)?;
            let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.path = Some(value.to_owned()),
                b"linkpath" => self.link = Some(value.to_owned()),
                b"size" => self.size = Some(number(value).ok_or_else(malformed)?),
                key if key.starts_with(b"GNU.sparse.") => return Err(sparse()),
                _ => {}
            }
            records = &records[length..];
        }
        Ok(())
    }
}

/// Returns the error for a sparse entry, whose bytes are not the bytes of the file.
pub(super) fn sparse() -> Error {
    Error::malformed("the archive has a sparse entry, which no archive of images has")
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    // `parse` would accept a sign.
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_taken_by_their_lengths() {
        let mut extended = Extended::default();
        extended.take(b"20 SCHILY.xattr.a=\n\n9 path=b\n20 size=12345678901\n14 linkpath=c\n").expect("records");
        let expected = Extended { path: Some(b"b".to_vec()), link: Some(b"c".to_vec()), size: Some(12_345_678_901) };
        assert_eq!(extended, expected);
    }

    #[test]
    fn malformed_records_are_refused() {
        for records in [
            "x",
            "5 a=b\n",
            "7 a=b\n",
            "6 a=b\nx",
            "0 a=b\n",
            "3 a=b\n",
            "6 ab\n\n",
            "99999999999999999999 path=a\n",
            "10 size=x\n",
            "11 size=-1\n",
            "28 size=99999999999999999999\n",
            "22 GNU.sparse.major=1\n",
        ] {
            assert!(Extended::default().take(records.as_bytes()).is_err(), "{records}");
        }
    }
}
