//! The build context: the files of a directory that belong to it, and their content.
//!
//! BuildKit requests parts of a directory by patterns; its frontend returns the `.dockerignore` rules as exclude patterns. The
//! answer must be exactly that of BuildKit's own client. That client uses moby/patternmatcher for the patterns, and
//! tonistiigi/fsutil for the walk.

#[cfg(test)]
mod error_tests;
mod glob;
mod go_regex;
mod hash;
mod held;
mod links;
mod pattern;
mod tar;
mod tree;
mod walk;

pub use glob::{clean, matches};
pub use hash::{counts, hash};
pub use held::{Difference, Held};
pub use pattern::{InvalidPattern, ParentMatch, PatternMatcher};
pub use tree::{Node, NodeKind, NotSelected, Tree};
pub use walk::{Entry, EntryKind, Selection, WalkError, walk};
