//! Small file systems as values: the states of the scripted daemon, and the layers between two of them.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;

use bytes::Bytes;
use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};

/// The kind and content of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File(Vec<u8>),
    Directory,
}

/// The attributes and content of a path. Root owns all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    pub mode: u32,
    /// The time in seconds of the Unix epoch.
    pub modified: i64,
}

impl Node {
    pub fn file(content: impl Into<Vec<u8>>, mode: u32, modified: i64) -> Self {
        Self { kind: Kind::File(content.into()), mode, modified }
    }

    pub fn directory(modified: i64) -> Self {
        Self { kind: Kind::Directory, mode: 0o755, modified }
    }

    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// The nodes by their paths, which have no slash at either end. The root is not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(pub BTreeMap<String, Node>);

impl Files {
    /// Adds a file and its parent directories.
    pub fn put(&mut self, path: &str, node: Node) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.make_directories(parent, node.modified);
        }
        self.0.insert(path.to_owned(), node);
    }

    /// Creates a directory and its parents, if they do not exist.
    pub fn make_directories(&mut self, path: &str, modified: i64) {
        let mut end = 0;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            end += part.len();
            self.0.entry(path[..end].to_owned()).or_insert_with(|| Node::directory(modified));
            end += 1;
        }
    }

    /// Removes a path with all below it.
    pub fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.0.retain(|other, _| other != path && !other.starts_with(&below));
    }

    /// Returns a directory's entries with their relative paths. A file has the empty path. Returns `None` if the path does not exist.
    pub fn below(&self, path: &str) -> Option<Vec<(String, Node)>> {
        if path.is_empty() {
            return Some(self.0.clone().into_iter().collect());
        }
        let own = self.0.get(path)?;
        let prefix = format!("{path}/");
        let rest = self.0.iter().filter_map(|(other, node)| Some((other.strip_prefix(&prefix)?.to_owned(), node.clone())));
        Some(std::iter::once((String::new(), own.clone())).chain(rest).collect())
    }

    /// Returns a digest of the files without their times.
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        for (path, node) in &self.0 {
            let (kind, content) = match &node.kind {
                Kind::File(content) => ('f', &content[..]),
                Kind::Directory => ('d', &[][..]),
            };
            hasher.update(format!("{kind} {:o} {} {path}\n", node.mode, content.len()));
            hasher.update(content);
        }
        format!("{:x}", hasher.finalize())
    }

    /// Applies a layer to these files.
    pub fn apply(&mut self, tar: &[u8]) -> std::io::Result<()> {
        for entry in tar::Archive::new(tar).entries()? {
            let mut entry = entry?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).trim_matches('/').to_owned();
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if let Some(removed) = name.strip_prefix(".wh.") {
                let removed = if parent.is_empty() { removed.to_owned() } else { format!("{parent}/{removed}") };
                self.remove(&removed);
                continue;
            }
            let (mode, modified) = (entry.header().mode()? & 0o7777, entry.header().mtime()?.cast_signed());
            let kind = match entry.header().entry_type() {
                tar::EntryType::Directory => Kind::Directory,
                tar::EntryType::Regular => {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content)?;
                    Kind::File(content)
                }
                other => return Err(std::io::Error::other(format!("the model has no {other:?}: {path}"))),
            };
            if kind != Kind::Directory {
                self.remove(&path);
            }
            self.0.insert(path, Node { kind, mode, modified });
        }
        Ok(())
    }

    /// Returns the layer that turns other files into these: the changed paths, their directories, and whiteouts for removed paths.
    pub fn layer_on(&self, below: &Self) -> Vec<u8> {
        let is_same = |node: &Node, path: &str| match below.0.get(path) {
            Some(old) if node.is_directory() => old.is_directory() && old.mode == node.mode,
            old => old == Some(node),
        };
        let mut all: BTreeMap<String, Option<&Node>> = BTreeMap::new();
        let mut add = |path: &str, node: Option<&'_ Node>| {
            let parents = path.match_indices('/').map(|(place, _)| &path[..place]);
            for parent in parents {
                if let Some((own, node)) = self.0.get_key_value(parent) {
                    all.entry(own.clone()).or_insert(Some(self.0.get(own).unwrap_or(node)));
                }
            }
            let node = node.and_then(|_| self.0.get(path));
            all.insert(path.to_owned(), node);
        };
        for (path, node) in self.0.iter().filter(|(path, node)| !is_same(node, path)) {
            add(path, Some(node));
        }
        let gone = |path: &str| !self.0.contains_key(path);
        for path in below.0.keys().filter(|path| gone(path) && !path.rsplit_once('/').is_some_and(|(parent, _)| gone(parent))) {
            add(path, None);
        }
        tar_of(all)
    }

    /// Returns all files in one archive.
    pub fn tar(&self) -> Vec<u8> {
        tar_of(self.0.iter().map(|(path, node)| (path.clone(), Some(node))).collect())
    }

    /// Reads the files of a directory of this machine, like those that hakobi sends to the daemon.
    pub fn of_folder(folder: &Path) -> Self {
        let mut files = Self::default();
        files.read_folder(folder, "");
        files
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) {
        use std::os::unix::fs::MetadataExt as _;
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            let metadata = entry.metadata().unwrap();
            let kind = if metadata.is_dir() { Kind::Directory } else { Kind::File(std::fs::read(entry.path()).unwrap()) };
            let node = Node { kind, mode: metadata.mode() & 0o7777, modified: metadata.mtime() };
            if node.is_directory() {
                self.read_folder(&entry.path(), &format!("{path}/"));
            }
            self.0.insert(path, node);
        }
    }
}

fn tar_of(entries: BTreeMap<String, Option<&Node>>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, node) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Regular);
        let Some(node) = node else {
            header.set_mode(0);
            header.set_mtime(0);
            let (parent, name) = path.rsplit_once('/').map_or(("", &*path), |(parent, name)| (parent, name));
            let slash = if parent.is_empty() { "" } else { "/" };
            tar.append_data(&mut header, format!("{parent}{slash}.wh.{name}"), std::io::empty()).unwrap();
            continue;
        };
        header.set_mode(node.mode);
        header.set_mtime(node.modified.max(0).cast_unsigned());
        match &node.kind {
            Kind::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, format!("{path}/"), std::io::empty()).unwrap();
            }
            Kind::File(content) => {
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, &path, &content[..]).unwrap();
            }
        }
    }
    tar.into_inner().unwrap()
}

/// Returns the blob of a layer. The same tar always gives the same bytes.
pub fn gzipped(tar: &[u8]) -> Bytes {
    let mut writer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::fast());
    writer.write_all(tar).unwrap();
    writer.finish().unwrap().into()
}

/// Returns the tar of a blob, decompressed if it is compressed.
pub fn plain(blob: &[u8]) -> std::io::Result<Vec<u8>> {
    if blob.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return zstd::decode_all(blob);
    }
    if !blob.starts_with(&[0x1f, 0x8b]) {
        return Ok(blob.to_vec());
    }
    let mut tar = Vec::new();
    GzDecoder::new(blob).read_to_end(&mut tar)?;
    Ok(tar)
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}
