//! File sync. The daemon requests a local directory by patterns, gets a list of its entries, and requests the files whose content
//! it lacks (tonistiigi/fsutil `Send`).

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use futures::{FutureExt as _, StreamExt as _};
use percent_encoding::percent_decode;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::expected::{Against, Expected};
use super::sync_wire::{Packets, SentPacket, SentStat, SentXattr};
use super::times::{Sender, Times};
use crate::build_context::{self, Difference, Entry, EntryKind, Selection, WalkError};
use crate::domain::{Digest, Hasher, bytes_of, is_utf8, path_of, shown, spelled};

/// The number of files that hakobi reads at once.
const READERS: usize = 8;

/// The bytes in a data packet, as in fsutil.
const CHUNK: usize = 32 << 10;

/// Local directories by the names that sources give them.
#[derive(Debug, Clone, Default)]
pub struct LocalDirs(HashMap<String, PathBuf>);

impl LocalDirs {
    /// Allows the daemon to read this directory under this name.
    pub fn add(&mut self, name: impl Into<String>, directory: impl Into<PathBuf>) {
        self.0.insert(name.into(), directory.into());
    }

    /// Returns the directory of this name. Returns `None` if there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Path> {
        self.0.get(name).map(PathBuf::as_path)
    }

    /// Returns all directories with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Path)> {
        let mut all: Vec<_> = self.0.iter().map(|(name, path)| (&**name, &**path)).collect();
        all.sort_unstable();
        all.into_iter()
    }

    /// Returns whether there are no directories.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The errors of local files.
#[derive(Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Failed>>);

#[derive(Default)]
struct Failed {
    /// The first file that hakobi could not read.
    unread: Option<String>,
    /// The first sent path that is not UTF-8, or whose link target is not UTF-8. Recent daemons reject it.
    odd: Option<String>,
}

/// The message of gRPC about a name that is not UTF-8.
const NOT_UTF8: &str = "invalid UTF-8";

impl Failure {
    /// Returns why hakobi could not send files, given the daemon's message, and a hint. Returns `None` if the files are not the
    /// reason.
    pub(super) fn get(&self, said: &str) -> Option<(String, &'static str)> {
        let failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(unread) = &failed.unread {
            return Some((unread.clone(), "make it readable, or list it in .dockerignore"));
        }
        let odd = failed.odd.as_ref().filter(|_| said.contains(NOT_UTF8))?;
        let text = format!("failed to send {}: this Docker daemon accepts only names and link targets in UTF-8", shown(odd));
        Some((text, "rename it, or exclude it in .dockerignore with a wildcard for what is not UTF-8"))
    }

    fn set(&self, text: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).unread.get_or_insert_with(|| text.to_owned());
    }

    fn note(&self, entry: &Entry) {
        let target = match &entry.kind {
            EntryKind::Link(target) | EntryKind::HardLink(target) => target,
            _ => "",
        };
        if !is_utf8(&entry.path) || !is_utf8(target) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).odd.get_or_insert_with(|| entry.path.clone());
        }
    }
}

pub(super) struct FileSyncService {
    directories: LocalDirs,
    sent: Arc<AtomicU64>,
    failure: Failure,
    expected: Expected,
    times: Times,
}

impl FileSyncService {
    pub(super) fn new(directories: LocalDirs, sent: Arc<AtomicU64>, failure: Failure, expected: Expected, times: Times) -> Self {
        Self { directories, sent, failure, expected, times }
    }
}

impl FileSyncService {
    /// Starts to send the files of the request.
    pub(super) fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        let name = values(request.metadata(), "dir-name").pop().unwrap_or_default();
        let root =
            self.directories.0.get(&name).ok_or_else(|| Status::not_found(format!("no access allowed to dir \"{name}\"")))?;
        let selection = Selection {
            include: values(request.metadata(), "include-patterns"),
            exclude: values(request.metadata(), "exclude-patterns"),
            follow: values(request.metadata(), "followpaths"),
        };
        let against = self.expected.of(&name, &selection);
        let (sender, receiver) = mpsc::channel(256);
        let sending = Sending {
            expected: against.is_anything().then(|| self.expected.clone()),
            root: root.clone(),
            to: sender,
            files: Arc::default(),
            readers: Arc::new(Semaphore::new(READERS)),
            sent: Arc::clone(&self.sent),
            failure: self.failure.clone(),
            times: self.times.clone(),
        };
        tokio::task::spawn_blocking({
            let sending = sending.clone();
            move || sending.list(&name, &selection, against)
        });
        tokio::spawn(async move { sending.answer(request.into_inner()).await });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }
}

/// Returns the values of a header. Recent daemons encode values beyond ASCII as in a URL's query, and another header says so.
/// Docker 20.10 sends them unencoded.
fn values(metadata: &MetadataMap, name: &str) -> Vec<String> {
    let encoded = metadata.get(format!("{name}-encoded")).is_some_and(|flag| flag == "1");
    let value = |bytes: &[u8]| {
        if !encoded {
            return spelled(bytes);
        }
        let spaced: Vec<u8> = bytes.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        spelled(&percent_decode(&spaced).collect::<Vec<u8>>())
    };
    metadata.get_all(name).iter().map(|text| value(text.as_encoded_bytes())).collect()
}

#[derive(Clone)]
struct Sending {
    root: PathBuf,
    to: mpsc::Sender<Result<SentPacket, Status>>,
    /// The files by their place in the list, without those that the daemon has requested.
    files: Arc<Mutex<HashMap<u32, Listed>>>,
    readers: Arc<Semaphore>,
    sent: Arc<AtomicU64>,
    failure: Failure,
    /// The times to send, and the place to note the sent ones.
    times: Times,
    /// The place to report differences from the hashed files. `None` if hakobi does not compare this transfer.
    expected: Option<Expected>,
}

/// A file of the list.
struct Listed {
    path: String,
    /// The size in bytes. `None` for another name of an earlier file.
    size: Option<u64>,
    /// Whether hakobi sends the file without its content: a socket.
    empty: bool,
    /// The digest of the file's bytes when hakobi hashed it.
    content: Option<Digest>,
}

impl Sending {
    fn list(&self, name: &str, selection: &Selection, mut against: Against) {
        let mut times = Sender::new(name, self.times.chosen());
        if times.is_chosen() {
            // The walk below reports errors.
            let _ = build_context::walk(&self.root, selection, &mut |entry| {
                times.learn(&entry);
                true
            });
        }
        let mut sent = Vec::new();
        let mut number = 0;
        let mut names = HashSet::new();
        let mut differs = None;
        let mut each = |entry: Entry| {
            if let Err(difference) = against.entry(&entry) {
                differs = Some(difference);
                return false;
            }
            if matches!(against, Against::Files(_)) && self.expected.is_some() {
                names.insert(entry.path.clone());
            }
            if matches!(entry.kind, EntryKind::File | EntryKind::HardLink(_) | EntryKind::Socket) {
                let size = (entry.kind == EntryKind::File).then_some(entry.size);
                let (path, empty) = (entry.path.clone(), entry.kind == EntryKind::Socket);
                let listed = Listed { content: against.content(&path), path, size, empty };
                self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(number, listed);
            }
            number += 1;
            self.failure.note(&entry);
            let entry = Entry { modified: times.time(&entry), ..entry };
            sent.push((entry.path.clone(), entry.modified));
            self.to.blocking_send(Ok(packet(PacketType::PacketStat, 0, Some(stat(entry)), Vec::new()))).is_ok()
        };
        let walked = build_context::walk(&self.root, selection, &mut each);
        // The daemon may end the build as soon as it has the list.
        self.times.note(name, sent);
        let differs = differs.or_else(|| walked.is_ok().then(|| against.end(|path| names.contains(path)).err()).flatten());
        let last = match (differs, walked) {
            (Some(difference), _) => self.moved(&difference),
            (None, Ok(())) => packet(PacketType::PacketStat, 0, None, Vec::new()),
            (None, Err(WalkError::Stopped)) => return,
            // hakobi could read the file when it hashed it.
            (None, Err(WalkError::Read { path, .. })) if self.expected.is_some() => self.moved(&unreadable(&path)),
            (None, Err(error)) => self.fault(&error.to_string()),
        };
        let _ = self.to.blocking_send(Ok(last));
    }

    /// Accepts requests immediately, however many earlier requests wait for their files. Requests are small, and h2 closes a
    /// connection that has too many small unread frames.
    async fn answer(&self, mut requests: Streaming<Packet>) {
        let (asked_for, mut asked) = mpsc::unbounded_channel::<(u32, Listed)>();
        let sending = self.clone();
        tokio::spawn(async move {
            while let Some((id, file)) = asked.recv().await {
                let Ok(permit) = Arc::clone(&sending.readers).acquire_owned().await else { return };
                let sending = sending.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    sending.send(id, &file).await;
                });
            }
        });
        while let Some(Ok(request)) = requests.next().await {
            match PacketType::try_from(request.r#type) {
                Ok(PacketType::PacketReq) => {
                    let asked = self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(&request.id);
                    let Some(file) = asked else {
                        let _ = self.to.send(Ok(self.fault(&format!("invalid file id {}", request.id)))).await;
                        return;
                    };
                    if asked_for.send((request.id, file)).is_err() {
                        return;
                    }
                }
                Ok(PacketType::PacketFin) => {
                    let _ = self.to.send(Ok(packet(PacketType::PacketFin, 0, None, Vec::new()))).await;
                    return;
                }
                _ => return,
            }
        }
    }

    /// Sends a file. The last packet says that the file is complete; hakobi sends it only if the bytes are the hashed bytes.
    async fn send(&self, id: u32, file: &Listed) {
        let last = match self.content(id, file).await {
            Ok(None) => packet(PacketType::PacketData, id, None, Vec::new()),
            Ok(Some(difference)) => self.moved(&difference),
            Err(_) if self.expected.is_some() => self.moved(&unreadable(&file.path)),
            Err(error) => self.fault(&format!("failed to read {} in the build context: {error}", shown(&file.path))),
        };
        let _ = self.to.send(Ok(last)).await;
    }

    /// Sends a file's content. Returns how it differs from the hashed content, or `None` if it does not.
    async fn content(&self, id: u32, listed: &Listed) -> io::Result<Option<Difference>> {
        if listed.empty {
            return Ok(None);
        }
        let (mut hasher, mut size) = (listed.content.is_some().then(Hasher::default), 0);
        let mut file = tokio::fs::File::open(self.root.join(path_of(&listed.path))).await?;
        file.set_max_buf_size(CHUNK * 8);
        loop {
            let mut data = vec![0; CHUNK];
            let mut filled = 0;
            // Fills the packets while the file has bytes: a read may return fewer bytes.
            while filled < CHUNK {
                match file.read(&mut data[filled..]).await? {
                    0 => break,
                    read => filled += read,
                }
            }
            data.truncate(filled);
            size += filled as u64;
            if let Some(hasher) = &mut hasher {
                hasher.update(&data);
            }
            if filled > 0 {
                self.sent.fetch_add(filled as u64, Ordering::Relaxed);
                let sent = self.to.send(Ok(packet(PacketType::PacketData, id, None, data))).map(|sent| sent.is_ok()).await;
                if !sent {
                    return Ok(None);
                }
            }
            if filled < CHUNK {
                break;
            }
        }
        // The daemon's own digest of the file contains the listed size.
        let is_same = listed.size.is_none_or(|listed| listed == size) && hasher.map(|hasher| hasher.digest()) == listed.content;
        Ok((listed.content.is_some() && !is_same).then(|| Difference::of_content(&listed.path)))
    }

    /// Ends the transfer, because the bytes are not the hashed bytes.
    fn moved(&self, difference: &Difference) -> SentPacket {
        if let Some(expected) = &self.expected {
            expected.tell(difference);
        }
        self.fault(&format!("the build context changed while hakobi read it: {difference}"))
    }

    fn fault(&self, text: &str) -> SentPacket {
        self.failure.set(text);
        packet(PacketType::PacketErr, 0, None, text.as_bytes().to_vec())
    }
}

fn unreadable(path: &str) -> Difference {
    Difference::at(path, "it is no longer readable")
}

fn packet(kind: PacketType, id: u32, stat: Option<SentStat>, data: Vec<u8>) -> SentPacket {
    SentPacket { kind: kind.into(), stat, id, data }
}

/// Returns an entry's header: Go's `os.FileMode`, owner 0 (as buildx sends it) and the target of a link.
fn stat(entry: Entry) -> SentStat {
    const DIRECTORY: u32 = 1 << 31;
    const LINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const PIPE: u32 = 1 << 25;
    const SETUID: u32 = 1 << 23;
    const SETGID: u32 = 1 << 22;
    const CHARACTER: u32 = 1 << 21;
    const STICKY: u32 = 1 << 20;
    let mut mode = entry.mode & 0o777;
    for (bit, flag) in [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)] {
        if entry.mode & bit != 0 {
            mode |= flag;
        }
    }
    let (mut linkname, mut devmajor, mut devminor) = (Vec::new(), 0, 0);
    match entry.kind {
        EntryKind::File | EntryKind::Socket => {}
        EntryKind::HardLink(target) => linkname = bytes_of(&target).into_owned(),
        EntryKind::Directory => mode |= DIRECTORY,
        EntryKind::Link(target) => {
            mode |= LINK;
            linkname = bytes_of(&target).into_owned();
        }
        EntryKind::Pipe => mode |= PIPE,
        EntryKind::Device { character, major, minor } => {
            mode |= DEVICE | if character { CHARACTER } else { 0 };
            (devmajor, devminor) = (major.cast_signed(), minor.cast_signed());
        }
    }
    // The size of a link is the length of its target, as in `lstat`.
    let size = if mode & LINK != 0 { linkname.len() as i64 } else { i64::try_from(entry.size).unwrap_or(i64::MAX) };
    let xattr = |(name, value): (String, Vec<u8>)| SentXattr { name: bytes_of(&name).into_owned(), value };
    SentStat {
        path: bytes_of(&entry.path).into_owned(),
        mode,
        uid: 0,
        gid: 0,
        size,
        mod_time: entry.modified,
        linkname,
        devmajor,
        devminor,
        xattrs: entry.xattrs.into_iter().map(xattr).collect(),
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
