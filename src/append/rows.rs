//! A layer's index as it is kept: rows that say what differs from the most frequent, each path less what it shares with the one
//! before.

use serde::{Deserialize, Serialize};

use super::index::{Kind, LayerIndex, PathEntry};

/// Longest path, in bytes, as in Linux.
const LONGEST: usize = 4096;

/// Most bytes of all paths of a layer: rows that share much stand for more than they are.
const MOST: usize = 256 << 20;

/// An index as rows.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Rows {
    rows: Vec<Row>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    opaque: Vec<String>,
}

/// A path. Names are short, since there are many.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Row {
    /// Bytes that the path shares with the one before.
    #[serde(rename = "s", default, skip_serializing_if = "is_default")]
    shared: usize,
    /// The rest of the path.
    #[serde(rename = "n")]
    name: String,
    /// `d`, `l`, `o`; a file has none.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    kind: Option<char>,
    /// The target of a link, or the text of a file.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// A directory's, where it is not 0755.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
    #[serde(rename = "o", default, skip_serializing_if = "is_default")]
    owner: (u32, u32),
    #[serde(rename = "c", default, skip_serializing_if = "is_default")]
    modified: u64,
    #[serde(rename = "i", default, skip_serializing_if = "is_default")]
    implied: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Rows that are no index.
#[derive(Debug, thiserror::Error)]
#[error("a path index cannot be read")]
pub(super) struct Broken;

impl From<LayerIndex> for Rows {
    fn from(index: LayerIndex) -> Self {
        let mut before = String::new();
        let mut rows = Vec::with_capacity(index.entries.len());
        for (path, met) in index.entries {
            let same = path.char_indices().zip(before.chars()).take_while(|((_, a), b)| a == b).last();
            let shared = same.map_or(0, |((at, c), _)| at + c.len_utf8());
            let is_directory = met.kind == Kind::Directory;
            let (kind, text) = match met.kind {
                Kind::File => (None, met.text),
                Kind::Directory => (Some('d'), None),
                Kind::Link(target) => (Some('l'), Some(target)),
                Kind::Other => (Some('o'), None),
            };
            let mode = Some(met.mode).filter(|mode| is_directory && *mode != 0o755);
            let name = path[shared..].to_owned();
            rows.push(Row { shared, name, kind, text, mode, owner: met.owner, modified: met.modified, implied: met.implied });
            before = path;
        }
        Self { rows, removed: index.removed.into_iter().collect(), opaque: index.opaque.into_iter().collect() }
    }
}

impl TryFrom<Rows> for LayerIndex {
    type Error = Broken;

    fn try_from(rows: Rows) -> Result<Self, Broken> {
        let mut index = Self::default();
        let mut before = String::new();
        let mut all = 0;
        for row in rows.rows {
            let path = format!("{}{}", before.get(..row.shared).ok_or(Broken)?, row.name);
            all += path.len();
            if path.len() > LONGEST || all > MOST {
                return Err(Broken);
            }
            let met = match (row.kind, row.text) {
                (None, text) => PathEntry { text, ..PathEntry::plain(Kind::File) },
                (Some('d'), None) => {
                    PathEntry { implied: row.implied, ..PathEntry::directory(row.mode.unwrap_or(0o755), row.owner, row.modified) }
                }
                (Some('l'), Some(target)) => PathEntry::plain(Kind::Link(target)),
                (Some('o'), None) => PathEntry::plain(Kind::Other),
                _ => return Err(Broken),
            };
            index.entries.insert(path.clone(), met);
            before = path;
        }
        index.removed = rows.removed.into_iter().collect();
        index.opaque = rows.opaque.into_iter().collect();
        Ok(index)
    }
}
