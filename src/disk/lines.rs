//! Lines of JSON, in which a build, the keeper of its daemon and the process that serves the disk talk.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Returns a message as a line.
#[must_use]
pub fn line<T: Serialize>(message: &T) -> Vec<u8> {
    // The messages are plain values, which JSON can always hold.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Passes on the messages of a stream, until it ends or they are not wanted any more.
pub fn each<T: DeserializeOwned>(stream: impl io::Read, mut take: impl FnMut(T) -> bool) {
    for line in BufReader::new(stream).lines() {
        let said = line.ok().and_then(|line| serde_json::from_str(&line).ok());
        if !said.is_some_and(&mut take) {
            return;
        }
    }
}

/// Where several threads send replies.
#[derive(Debug, Clone)]
pub struct Replies(Arc<Mutex<File>>);

impl Replies {
    /// Sends to this file.
    #[must_use]
    pub fn new(output: File) -> Self {
        Self(Arc::new(Mutex::new(output)))
    }

    /// Sends a reply. If the other side has gone, the input ends too.
    pub fn send<T: Serialize>(&self, reply: &T) {
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line(reply));
    }
}
