//! An image as the only file of a FUSE filesystem, for a loop device.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::error::{DiskLoss, Error, Result};
use super::image::Image;

/// The file's number. The directory's is 1.
const FILE: INodeNo = INodeNo(2);

/// How long the kernel may believe what it was told: nothing changes but by itself.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// Bits of fallocate's mode: keep the size, and make a hole.
const HOLE: i32 = 1 | 2;

/// How long a reader at most waits for that. Nobody may wait for ever, and nobody who was killed can go on by then.
const LATEST: Duration = Duration::from_secs(8);

/// Bytes of the image that cannot be had. Their reader waits until `told` is answered or dropped, and only then gets an error.
#[derive(Debug)]
pub struct Lost {
    /// Why not.
    pub why: DiskLoss,
    /// Answered when nobody uses the image any more.
    pub told: oneshot::Sender<()>,
}

/// Mounts a filesystem that has an image as its only file, with this name. Dropping the returned value unmounts it.
///
/// # Errors
/// If the machine does not allow it.
pub fn serve(
    image: Arc<Image>,
    directory: &Path,
    name: &str,
    runtime: Handle,
    lost: mpsc::UnboundedSender<Lost>,
) -> io::Result<BackgroundSession> {
    let mut config = fuser::Config::default();
    config.mount_options =
        vec![MountOption::FSName("hakobi".to_owned()), MountOption::NoDev, MountOption::NoSuid, MountOption::NoExec];
    fuser::spawn_mount(Files { shared: Shared { image, lost }, name: name.into(), runtime }, directory, &config)
}

#[derive(Debug)]
struct Files {
    shared: Shared,
    name: OsString,
    runtime: Handle,
}

#[derive(Debug, Clone)]
struct Shared {
    image: Arc<Image>,
    lost: mpsc::UnboundedSender<Lost>,
}

impl Shared {
    /// Returns a result for the kernel, an error not before nobody uses the image any more: a command could otherwise go on without
    /// its bytes.
    async fn answer<T>(&self, result: Result<T>) -> std::result::Result<T, Errno> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let errno = match &error {
            Error::Local(error) if error.kind() == io::ErrorKind::StorageFull => Errno::ENOSPC,
            _ => Errno::EIO,
        };
        let (told, answered) = oneshot::channel();
        if self.lost.send(Lost { why: error.into(), told }).is_ok() {
            let _ = tokio::time::timeout(LATEST, answered).await;
        }
        Err(errno)
    }
}

impl Files {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let size = if inode == FILE { self.shared.image.size() } else { 0 };
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if inode == FILE { FileType::RegularFile } else { FileType::Directory },
            perm: if inode == FILE { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == self.name {
            reply.entry(&FOREVER, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let shared = self.shared.clone();
        let size = u64::from(size).min(shared.image.size().saturating_sub(offset));
        self.runtime.spawn(async move {
            let read = shared.image.read(offset, usize::try_from(size).unwrap_or_default()).await;
            match shared.answer(read).await {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(error),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (shared, data) = (self.shared.clone(), data.to_vec());
        self.runtime.spawn(async move {
            let written = shared.image.write(offset, &data).await;
            match shared.answer(written).await {
                Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or_default()),
                Err(error) => reply.error(error),
            }
        });
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        if mode != HOLE {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            let discarded = shared.image.discard(offset, length).await;
            match shared.answer(discarded).await {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(error),
            }
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // The local copy need not survive the machine: only an image that was unmounted is saved.
        reply.ok();
    }
}
