//! Reads the input ahead, on a thread of its own: the daemon sends while files are being created. A pipe alone has 64 KiB.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

/// The size of a part in bytes: what a pipe has.
const PART: usize = 64 << 10;

/// The most parts that wait: 8 MiB.
const PARTS: usize = 128;

/// An input that is read ahead. The thread ends with the input, or with the process.
pub(super) struct ReadAhead {
    parts: Receiver<io::Result<Vec<u8>>>,
    part: Vec<u8>,
    /// How many bytes of the part were read.
    read: usize,
}

impl ReadAhead {
    /// Begins to read.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn new(mut input: impl Read + Send + 'static) -> io::Result<Self> {
        let (send, parts) = sync_channel(PARTS);
        let read = move || {
            loop {
                let mut part = vec![0; PART];
                let read = match input.read(&mut part) {
                    Ok(0) => return,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    read => read,
                };
                let is_over = read.is_err();
                let part = read.map(|length| {
                    part.truncate(length);
                    part
                });
                if send.send(part).is_err() || is_over {
                    return;
                }
            }
        };
        thread::Builder::new().name("input".to_owned()).spawn(read)?;
        Ok(Self { parts, part: Vec::new(), read: 0 })
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.part.len() {
            match self.parts.recv() {
                Ok(part) => (self.part, self.read) = (part?, 0),
                // The thread has read all.
                Err(_) => return Ok(0),
            }
        }
        let left = &self.part[self.read..];
        let length = left.len().min(buffer.len());
        buffer[..length].copy_from_slice(&left[..length]);
        self.read += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_arrives_and_then_the_end() {
        let bytes: Vec<u8> = (0..PART * 3 + 7).map(|at| (at % 251) as u8).collect();
        let mut read = Vec::new();
        ReadAhead::new(io::Cursor::new(bytes.clone())).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == bytes);
    }

    #[test]
    fn an_error_comes_after_what_was_before_it() {
        struct Broken(bool);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(io::Error::other("broken"));
                }
                buffer[0] = 1;
                Ok(1)
            }
        }
        let mut read = Vec::new();
        let error = ReadAhead::new(Broken(false)).unwrap().read_to_end(&mut read).unwrap_err();
        assert_eq!((read, error.to_string()), (vec![1], "broken".to_owned()));
    }
}
