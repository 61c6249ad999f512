//! The build context: which files of a directory belong to it and what they are.
//!
//! BuildKit asks for parts of a directory by patterns (the `.dockerignore` rules come back from its frontend as exclude
//! patterns) and the answer must be exactly the one that its own client gives: moby/patternmatcher for the patterns,
//! tonistiigi/fsutil for the walk.

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
