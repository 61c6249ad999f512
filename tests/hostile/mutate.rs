//! Mutates inputs. The same seed of the generator gives the same inputs on every machine.

/// The largest input, in bytes.
const LARGEST: usize = 64 << 10;

/// Numbers at the edges of what a parser may expect.
const NUMBERS: [u64; 12] =
    [0, 1, 127, 255, 512, 65_535, (1 << 31) - 1, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, u64::MAX - 511, u64::MAX];

/// Words of the formats that hakobi reads.
const WORDS: [&str; 20] = [
    "..", "/", "./", "\0", "\n", "-1", "null", "[", "{", "}", "\"", "\\u0000", "\u{feff}", "**/", "!", "[^", "{1000}", "sha256:",
    "1e999", "\n--\n",
];

/// A generator of mutated inputs (xorshift64*).
pub struct Mutator(u64);

impl Mutator {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number below this one.
    fn below(&mut self, most: usize) -> usize {
        (self.next() >> 16) as usize % most.max(1)
    }

    /// Returns one of the seeds with a few changes.
    pub fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..1 + self.below(5) {
            self.change(&mut bytes, seeds);
        }
        bytes.truncate(LARGEST);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(bytes.len());
        let end = bytes.len().min(at + 1 + self.below(64));
        match self.below(10) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at.min(end)..end)),
            // The head of one and the tail of another.
            2 => {
                let other = &seeds[self.below(seeds.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[self.below(other.len())..]);
            }
            3 => {
                let part = bytes.get(at..end).unwrap_or_default().repeat(1 + self.below(200));
                bytes.splice(at..at, part.into_iter().take(LARGEST));
            }
            4 => {
                let word = WORDS[self.below(WORDS.len())].repeat(1 + self.below(4));
                bytes.splice(at..at, word.bytes());
            }
            // A number in the text.
            5 => {
                let number = NUMBERS[self.below(NUMBERS.len())].to_string();
                let start = (at..bytes.len()).find(|at| bytes[*at].is_ascii_digit()).unwrap_or(at);
                let end = (start..bytes.len()).find(|at| !bytes[*at].is_ascii_digit()).unwrap_or(bytes.len());
                bytes.splice(start..end, number.bytes());
            }
            // A number in binary.
            6 => {
                let number = NUMBERS[self.below(NUMBERS.len())];
                let width = 1 << self.below(4);
                let number = if self.below(2) == 0 { number.to_le_bytes() } else { number.to_be_bytes() };
                let number = &number[self.below(2) * (8 - width)..][..width];
                let end = bytes.len().min(at + width);
                bytes.splice(at.min(end)..end, number.iter().copied());
            }
            7 => {
                let byte = self.next() as u8;
                bytes.insert(at, byte);
            }
            _ => {
                let bit = 1 << self.below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bit;
                }
            }
        }
    }
}
