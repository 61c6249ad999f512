//! What hakobi and its process in the container say to each other, over the process's standard input and output.
//!
//! A frame is the length of its message and the length of its payload (each four bytes, big-endian), the message as JSON, and the
//! payload. The process answers in the order in which it was asked.

use serde::{Deserialize, Serialize};

use super::entry::{ListedEntry, MountEntry};
use crate::domain::Digest;

/// The largest message, in bytes.
pub const LARGEST_MESSAGE: usize = 16 << 20;

/// The largest payload, in bytes.
pub const LARGEST_PAYLOAD: usize = 1 << 20;

/// The most entries in one message.
pub const MOST_ENTRIES: usize = 1000;

/// A request to the process. Mounts are named by their place among the process's arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// Says what the mount has: answered by [`Reply::Looked`]. Removes what an interrupted [`Request::Fill`] left.
    Look { mount: usize },
    /// Begins to fill the mount, which must be empty. Nothing of it is visible in the mount before [`Request::Finish`].
    Fill { mount: usize },
    /// The next entries to create, parents first; the first one of all is the root. Files are numbered by their place among all
    /// entries, from 0.
    Entries { mount: usize, entries: Vec<MountEntry> },
    /// A part of a file, which is the payload. What of a file no part covers is a hole.
    Data { mount: usize, file: u32, offset: u64 },
    /// Ends the filling: answered by [`Reply::Filled`] or [`Reply::Failed`].
    Finish { mount: usize },
    /// Gives the filling up and leaves the mount empty: answered by [`Reply::Failed`].
    Abandon { mount: usize },
    /// Lists the mount: answered by [`Reply::Entries`] and [`Reply::Listed`]. `since` is [`Reply::Filled::at`] or
    /// [`Reply::Listed::at`] of the state to compare with; without it, all entries count as changed.
    List { mount: usize, since: Option<i64> },
    /// Sends these files of the last list, by their numbers: answered by [`Reply::Data`] and [`Reply::Sent`].
    Send { mount: usize, files: Vec<u32> },
}

/// An answer of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum Reply {
    /// What the mount has.
    Looked {
        mount: usize,
        /// Whether it has nothing but its root.
        is_empty: bool,
        /// The digest of all paths with their kinds, sizes and times ([`super::Summary`]).
        summary: Digest,
        /// The latest time of a change of content, in nanoseconds since 1970; the root counts only if it is not empty.
        newest: i64,
    },
    /// The mount has all entries. `at` is the kernel's time after the last change, in nanoseconds since 1970.
    Filled { mount: usize, at: i64 },
    /// The mount is empty, because of this.
    Failed { mount: usize, why: String },
    /// The next entries of a list, parents first, in the order of their paths.
    Entries { mount: usize, entries: Vec<ListedEntry> },
    /// The list is complete.
    Listed {
        mount: usize,
        /// Paths of sockets and devices, which are left out.
        skipped: Vec<String>,
        /// The kernel's time when the list began, in nanoseconds since 1970.
        at: i64,
        /// As in [`Reply::Looked`].
        summary: Digest,
        /// As in [`Reply::Looked`].
        newest: i64,
    },
    /// A part of a file, which is the payload. What of a file no part covers is a hole.
    Data { mount: usize, file: u32, offset: u64 },
    /// All files were sent, but for these, which vanished or changed meanwhile.
    Sent { mount: usize, gone: Vec<u32> },
    /// The process cannot go on.
    Broken { why: String },
}
