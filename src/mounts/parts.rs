//! The two sides of a mount's content: from where hakobi gets parts of files, and to where it gives them.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;

/// A part of a file. What of a file no part covers is a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentPart {
    /// The number of the file in the listing.
    pub file: u32,
    /// The position in the file.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
}

/// Supplies the content of a mount's files.
#[async_trait]
pub trait PartSource: Send {
    /// Asks for these files, by their numbers in the listing. Called once, even if there is no file.
    async fn send(&mut self, files: &[u32]) -> io::Result<()>;

    /// Returns the next part: file by file as asked for, and each file from its beginning. Returns `None` after the last one.
    async fn next(&mut self) -> io::Result<Option<SentPart>>;

    /// Returns the files that vanished or changed meanwhile. Called after the last part.
    fn gone(&self) -> Vec<u32>;
}

/// Takes the content of a mount's files.
#[async_trait]
pub trait PartSink: Send {
    /// Takes a part of a file, named by its place in the list of files. A file's parts come in any order, between those of others.
    async fn part(&mut self, file: u32, offset: u64, data: Bytes) -> io::Result<()>;
}
