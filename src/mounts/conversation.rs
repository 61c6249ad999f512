//! The conversation with the process in a container.

use std::io;

use bytes::Bytes;

use super::frame::{Decoder, encode};
use super::protocol::{Reply, Request};
use crate::engine::buildkit::{Process, ProcessInput, ProcessOutput};

/// A conversation with a running process.
pub struct Conversation {
    input: ProcessInput,
    output: ProcessOutput,
    decoder: Decoder,
}

impl Conversation {
    /// Begins a conversation.
    pub fn new(process: Process) -> Self {
        Self { input: process.input, output: process.output, decoder: Decoder::default() }
    }

    /// Sends a request with its payload, at the latest when an answer is wanted.
    ///
    /// # Errors
    /// If the process or the daemon has gone.
    pub async fn ask(&mut self, request: &Request, payload: &[u8]) -> io::Result<()> {
        self.input.write(&encode(request, payload)?).await
    }

    /// Returns the next answer with its payload.
    ///
    /// # Errors
    /// If the process cannot go on, or has gone.
    pub async fn answer(&mut self) -> io::Result<(Reply, Bytes)> {
        self.input.flush().await?;
        loop {
            match self.decoder.next::<Reply>()? {
                Some((Reply::Broken { why }, _)) => return Err(io::Error::other(why)),
                Some(answer) => return Ok(answer),
                None => match self.output.read().await? {
                    Some(bytes) => self.decoder.push(&bytes),
                    None => return Err(io::Error::other("the process in the container ended early")),
                },
            }
        }
    }

    /// Ends the process.
    ///
    /// # Errors
    /// If it failed.
    pub async fn end(mut self) -> io::Result<()> {
        self.input.end().await?;
        while self.output.read().await?.is_some() {}
        Ok(())
    }
}
