//! The files of a state that a daemon exported as a tar.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::tree::{Node, NodeKind, Tree};
use crate::domain::Hasher;

/// Bytes read at once.
const BUFFER: usize = 256 << 10;

impl Tree {
    /// Reads a tar to its end. What a layer cannot carry does not count: of extended attributes only `security.capability` does.
    ///
    /// # Errors
    /// If it cannot be read, or is not what BuildKit writes.
    pub fn of_tar(from: impl Read) -> io::Result<Self> {
        let mut tree = Self::default();
        let mut archive = tar::Archive::new(from);
        let mut buffer = vec![0; BUFFER];
        for entry in archive.entries()? {
            let mut entry = entry?;
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| io::Error::other("a name is not UTF-8"));
            let path = text(&entry.path_bytes())?;
            let mut xattrs = BTreeMap::new();
            if let Some(extensions) = entry.pax_extensions()? {
                for extension in extensions {
                    let extension = extension?;
                    if extension.key() == Ok("SCHILY.xattr.security.capability") {
                        xattrs.insert("security.capability".to_owned(), extension.value_bytes().to_vec());
                    }
                }
            }
            let header = entry.header().clone();
            let target = |entry: &tar::Entry<'_, _>| match entry.link_name_bytes() {
                Some(target) => text(&target),
                None => Err(io::Error::other(format!("the link {path} leads nowhere"))),
            };
            let kind = match header.entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    let mut hasher = Hasher::default();
                    loop {
                        match entry.read(&mut buffer)? {
                            0 => break,
                            read => hasher.update(&buffer[..read]),
                        }
                    }
                    NodeKind::File(hasher.digest())
                }
                tar::EntryType::Link => {
                    let target = target(&entry)?;
                    let node = tree.get(&target).cloned();
                    let node =
                        node.ok_or_else(|| io::Error::other(format!("{path} is a link to {target}, which is not there")))?;
                    tree.insert(&path, node);
                    continue;
                }
                tar::EntryType::Directory => NodeKind::Directory,
                tar::EntryType::Symlink => NodeKind::Link(target(&entry)?),
                tar::EntryType::Fifo => NodeKind::Pipe,
                kind @ (tar::EntryType::Char | tar::EntryType::Block) => NodeKind::Device {
                    character: kind == tar::EntryType::Char,
                    major: header.device_major()?.unwrap_or(0).into(),
                    minor: header.device_minor()?.unwrap_or(0).into(),
                },
                other => return Err(io::Error::other(format!("{path} is of the kind {other:?}"))),
            };
            let owner = |id: u64| u32::try_from(id).map_err(io::Error::other);
            let owner = (owner(header.uid()?)?, owner(header.gid()?)?);
            tree.insert(&path, Node { kind, mode: header.mode()? & 0o7777, owner, xattrs });
        }
        Ok(tree)
    }
}
