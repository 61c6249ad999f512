//! Cuts the content of files into chunks. The cuts depend on the content near them, so that inserted bytes move only the cuts around
//! them (FastCDC, Xia et al. 2020).

use bytes::{Bytes, BytesMut};
use fastcdc::v2020::FastCDC;

use super::file_list::LARGEST_CHUNK;

/// The largest file that is one chunk, in bytes.
const WHOLE: u64 = AVERAGE as u64;

/// The sizes of the chunks of larger files, in bytes. Other sizes give other chunks, which hakobi has to upload again.
const SMALLEST: usize = 64 << 10;
const AVERAGE: usize = 256 << 10;
const LARGEST: usize = LARGEST_CHUNK as usize;

/// A chunk of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The number of the file.
    pub file: u32,
    /// The position in the file.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
}

/// Cuts one file after the other.
#[derive(Debug, Default)]
pub struct Chunker {
    file: Option<u32>,
    /// Whether the file is too large for one chunk.
    is_large: bool,
    /// The position of the buffer in the file.
    offset: u64,
    /// Contiguous bytes without a cut yet.
    buffer: BytesMut,
}

impl Chunker {
    /// Takes the next part of a file of this size. Adds the chunks that are complete.
    pub fn push(&mut self, file: u32, size: u64, offset: u64, data: &[u8], cuts: &mut Vec<Cut>) {
        let goes_on = self.file == Some(file) && self.offset + self.buffer.len() as u64 == offset;
        if !goes_on {
            self.finish(cuts);
            (self.file, self.is_large, self.offset) = (Some(file), size > WHOLE, offset);
        }
        self.buffer.extend_from_slice(data);
        // With fewer bytes, the next ones could still move the cut.
        while self.buffer.len() >= LARGEST {
            self.cut(cuts);
        }
    }

    /// Ends the contiguous bytes: at the end of a file, or before a hole.
    pub fn finish(&mut self, cuts: &mut Vec<Cut>) {
        while !self.buffer.is_empty() {
            self.cut(cuts);
        }
    }

    fn cut(&mut self, cuts: &mut Vec<Cut>) {
        let length = if self.is_large {
            let (_, end) = FastCDC::new(&self.buffer, SMALLEST, AVERAGE, LARGEST).cut(0, self.buffer.len());
            end.clamp(1, LARGEST).min(self.buffer.len())
        } else {
            self.buffer.len().min(LARGEST)
        };
        let data = self.buffer.split_to(length).freeze();
        cuts.push(Cut { file: self.file.unwrap_or_default(), offset: self.offset, data });
        self.offset += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Hasher;

    /// Returns bytes that look random.
    fn noise(length: usize, seed: u64) -> Vec<u8> {
        use rand::{RngCore as _, SeedableRng as _};
        let mut bytes = vec![0; length];
        rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        bytes
    }

    fn cut(bytes: &[u8], step: usize) -> Vec<Cut> {
        let (mut chunker, mut cuts) = (Chunker::default(), Vec::new());
        for (place, part) in bytes.chunks(step).enumerate() {
            chunker.push(7, bytes.len() as u64, (place * step) as u64, part, &mut cuts);
        }
        chunker.finish(&mut cuts);
        cuts
    }

    #[test]
    fn the_cuts_are_those_of_earlier_versions() {
        // Another library or version that cuts elsewhere would make every user upload everything again.
        let bytes: Vec<u8> =
            (0..4u32 << 18).flat_map(|at| at.wrapping_mul(0x9e37_79b1).rotate_left(at % 31).to_le_bytes()).collect();
        let ends: Vec<u64> = cut(&bytes, 1 << 20).iter().map(|cut| cut.offset).collect();
        insta::assert_debug_snapshot!(ends);
    }

    #[test]
    fn the_cuts_depend_on_neither_parts_nor_what_is_far() {
        let bytes = noise(6 << 20, 1);
        let cuts = cut(&bytes, 1 << 20);
        let lengths = |cuts: &[Cut]| cuts.iter().map(|cut| cut.data.len()).collect::<Vec<_>>();
        assert!(lengths(&cuts[..cuts.len() - 1]).iter().all(|length| (SMALLEST..=LARGEST).contains(length)));
        for step in [1000, 65_536, 3 << 20] {
            assert_eq!(cuts, cut(&bytes, step), "{step}");
        }
        let mut longer = b"inserted".to_vec();
        longer.extend_from_slice(&bytes);
        let new = cut(&longer, 1 << 20);
        let known: std::collections::HashSet<&Bytes> = cuts.iter().map(|cut| &cut.data).collect();
        assert!(new.iter().filter(|cut| !known.contains(&cut.data)).count() <= 2);
    }

    #[test]
    fn holes_and_files_end_a_chunk() {
        let (mut chunker, mut cuts) = (Chunker::default(), Vec::new());
        chunker.push(0, 10, 0, b"abc", &mut cuts);
        chunker.push(0, 10, 3, b"de", &mut cuts);
        chunker.push(0, 10, 8, b"f", &mut cuts);
        chunker.push(1, 1, 9, b"g", &mut cuts);
        chunker.finish(&mut cuts);
        let found: Vec<(u32, u64, &[u8])> = cuts.iter().map(|cut| (cut.file, cut.offset, &*cut.data)).collect();
        assert_eq!(found, [(0, 0, &b"abcde"[..]), (0, 8, b"f"), (1, 9, b"g")]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn chunks_are_the_file(length in 0usize..3_000_000, step in 1usize..2_000_000, seed: u64) {
            let bytes = noise(length, seed);
            let mut hasher = Hasher::default();
            let mut end = 0;
            for cut in cut(&bytes, step) {
                prop_assert_eq!(cut.offset, end);
                end += cut.data.len() as u64;
                hasher.update(&cut.data);
            }
            prop_assert_eq!(end, length as u64);
            prop_assert_eq!(hasher.digest(), crate::domain::Digest::hash(&bytes));
        }
    }
}
