//! Reads the files of a state from a tar that a daemon exported.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::tree::{Node, NodeKind, Tree};
use crate::domain::{Hasher, shown, spelled};
use crate::transfer::LayerEntries;

/// The number of bytes read at once.
const BUFFER: usize = 256 << 10;

impl Tree {
    /// Reads a tar to its end. Ignores attributes that a layer cannot contain: of extended attributes it reads only
    /// `security.capability`.
    ///
    /// # Errors
    /// If the tar is not readable, or has a form that BuildKit does not write.
    pub fn from_tar(from: impl Read) -> io::Result<Self> {
        let mut tree = Self::default();
        let mut entries = LayerEntries::new(from);
        let mut buffer = vec![0; BUFFER];
        while let Some(entry) = entries.next_entry()? {
            let path = spelled(&entry.path);
            let capability = entry.xattrs.iter().rev().find(|(name, _)| name == b"security.capability");
            let xattrs: BTreeMap<_, _> = capability.map(|(name, value)| (spelled(name), value.clone())).into_iter().collect();
            let header = &entry.header;
            let target = || match &*entry.link {
                [] => Err(io::Error::other(format!("the link {} has no target", shown(&path)))),
                target => Ok(spelled(target)),
            };
            let kind = match header.entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous if !entry.sparse => {
                    let mut hasher = Hasher::default();
                    loop {
                        match entries.read(&mut buffer)? {
                            0 => break,
                            read => hasher.update(&buffer[..read]),
                        }
                    }
                    NodeKind::File(hasher.digest())
                }
                tar::EntryType::Link => {
                    let target = target()?;
                    let node = tree.get(&target).cloned();
                    let node = node.ok_or_else(|| {
                        io::Error::other(format!("{} is a hard link to {}, which does not exist", shown(&path), shown(&target)))
                    })?;
                    tree.insert(&path, node);
                    continue;
                }
                tar::EntryType::Directory => NodeKind::Directory,
                tar::EntryType::Symlink => NodeKind::Link(target()?),
                tar::EntryType::Fifo => NodeKind::Pipe,
                kind @ (tar::EntryType::Char | tar::EntryType::Block) => NodeKind::Device {
                    character: kind == tar::EntryType::Char,
                    major: header.device_major()?.unwrap_or(0).into(),
                    minor: header.device_minor()?.unwrap_or(0).into(),
                },
                other => return Err(io::Error::other(format!("{} has the unsupported type {other:?}", shown(&path)))),
            };
            let owner = |id: u64| u32::try_from(id).map_err(io::Error::other);
            let owner = (owner(entry.owner.0)?, owner(entry.owner.1)?);
            tree.insert(&path, Node { kind, mode: header.mode()? & 0o7777, owner, xattrs });
        }
        Ok(tree)
    }
}
