//! Numbers and bytes of an encoded list. Small numbers take one byte.

use std::io::{self, Read, Write};

/// The memory that a list may take after decoding, in bytes.
const BUDGET: u64 = 256 << 20;

/// Writes numbers.
pub struct Writer<W>(pub W);

impl<W: Write> Writer<W> {
    /// Writes a number, seven bits a byte and the lowest first.
    pub fn number(&mut self, mut number: u64) -> io::Result<()> {
        let mut bytes = [0; 10];
        let mut length = 0;
        loop {
            let low = u8::try_from(number & 0x7f).unwrap_or_default();
            number >>= 7;
            bytes[length] = if number == 0 { low } else { low | 0x80 };
            length += 1;
            if number == 0 {
                return self.0.write_all(&bytes[..length]);
            }
        }
    }

    /// Writes the number of some items.
    pub fn count(&mut self, count: usize) -> io::Result<()> {
        self.number(count as u64)
    }

    /// Writes a number that is often near zero on both sides.
    pub fn signed(&mut self, number: i64) -> io::Result<()> {
        self.number(((number << 1) ^ (number >> 63)).cast_unsigned())
    }

    /// Writes bytes with their length.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.count(bytes.len())?;
        self.0.write_all(bytes)
    }
}

/// Reads numbers, and counts the memory that the list takes.
pub struct Reader<R> {
    from: R,
    left: u64,
}

impl<R: Read> Reader<R> {
    /// Returns a reader that reads and allocates within limits.
    pub fn new(from: R) -> Self {
        Self { from, left: BUDGET }
    }

    /// Reads a number.
    pub fn number<N: TryFrom<u64>>(&mut self) -> io::Result<N> {
        let mut number = 0u64;
        for place in 0..10 {
            let [byte] = self.array()?;
            let low = u64::from(byte & 0x7f);
            if place == 9 && low > 1 {
                break;
            }
            number |= low << (7 * place);
            if byte & 0x80 == 0 {
                return N::try_from(number).map_err(|_| invalid("a number is too large"));
            }
        }
        Err(invalid("a number is too long"))
    }

    /// Reads a number of items, each of which takes this much memory.
    pub fn count(&mut self, each: usize) -> io::Result<usize> {
        let count: u64 = self.number()?;
        self.spend((each as u64).checked_mul(count).ok_or_else(|| invalid("a number is too large"))?)?;
        usize::try_from(count).map_err(|_| invalid("a number is too large"))
    }

    /// Reads a signed number.
    pub fn signed(&mut self) -> io::Result<i64> {
        let number: u64 = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// Reads bytes with their length.
    pub fn bytes(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let length = self.count(1)?;
        if length > most {
            return Err(invalid("a text is too long"));
        }
        let mut bytes = vec![0; length];
        self.from.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads exactly this many bytes.
    pub fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Counts memory.
    pub fn spend(&mut self, bytes: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| invalid("the list is too large"))?;
        Ok(())
    }

    /// Checks that nothing follows.
    pub fn end(&mut self) -> io::Result<()> {
        if self.from.read(&mut [0])? == 0 { Ok(()) } else { Err(invalid("the list goes on after its end")) }
    }
}

/// Returns the error for a list that hakobi did not write.
pub fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}
