//! The disk's file as a block device, mounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, makedev, mknodat};
use rustix::mount::{UnmountFlags, unmount};

use super::command::run;

/// How long the kernel may take to let go of a disk.
const RELEASE: Duration = Duration::from_secs(30);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// A mounted disk. Dropping it unmounts it, without a look at whether that works.
#[derive(Debug)]
pub struct MountedDisk {
    directory: PathBuf,
    /// The device's name: `loop3`.
    device: String,
    is_mounted: bool,
}

impl MountedDisk {
    /// Mounts a file in a directory. A new file gets a filesystem first.
    ///
    /// # Errors
    /// If the machine does not allow it, or the file has no filesystem.
    pub fn new(file: &Path, directory: &Path, is_new: bool) -> io::Result<Self> {
        let text = file.to_string_lossy();
        if is_new {
            // No journal: only a disk that was unmounted is ever saved. Nothing is written before it is used.
            run("mkfs.ext4", &["-q", "-F", "-O", "^has_journal", "-m", "0", "-E", "lazy_itable_init=1,nodiscard", &text])?;
        }
        // It may make a device, whose node a container's /dev then lacks.
        let found = run("losetup", &["--find"]);
        add_nodes(Path::new("/sys/block"), Path::new("/dev"));
        // `loop` lets the kernel give the device up when nobody uses it any more, also after a crash.
        let mounted = run("mount", &["-t", "ext4", "-o", "loop,noatime", &text, &directory.to_string_lossy()]);
        mounted.map_err(|error| found.err().unwrap_or(error))?;
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let device = device_of(&mounts, directory).ok_or_else(|| io::Error::other("found no device of the mounted disk"))?;
        Ok(Self { directory: directory.to_owned(), device, is_mounted: true })
    }

    /// Gives free blocks back, and unmounts the disk. Returns when its file is complete.
    ///
    /// # Errors
    /// If something still uses it.
    pub fn end(mut self) -> io::Result<()> {
        run("fstrim", &[&self.directory.to_string_lossy()])?;
        let deadline = Instant::now() + RELEASE;
        // Processes that have just ended may still have it for a moment.
        loop {
            match unmount(&self.directory, UnmountFlags::empty()) {
                Ok(()) => break,
                Err(rustix::io::Errno::BUSY) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Err(error) => return Err(io::Error::other(format!("failed to unmount the disk: {error}"))),
            }
        }
        self.is_mounted = false;
        let bound = Path::new("/sys/block").join(&self.device).join("loop/backing_file");
        while bound.exists() {
            if Instant::now() > deadline {
                return Err(io::Error::other("the kernel does not let go of the disk"));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

impl Drop for MountedDisk {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = unmount(&self.directory, UnmountFlags::DETACH);
        }
    }
}

/// Returns the name of the device that is mounted in a directory, by /proc/self/mounts.
fn device_of(mounts: &str, directory: &Path) -> Option<String> {
    let directory = directory.to_str()?;
    let mut fields = mounts.lines().map(|line| line.split(' '));
    let path = fields.find_map(|mut fields| fields.next().filter(|_| fields.next() == Some(directory)))?;
    path.strip_prefix("/dev/").map(str::to_owned)
}

/// Makes the nodes of loop devices that lack one. What fails shows when the device is used.
fn add_nodes(devices: &Path, nodes: &Path) {
    for device in fs::read_dir(devices).into_iter().flatten().filter_map(Result::ok) {
        let name = device.file_name();
        let node = nodes.join(&name);
        if !name.to_string_lossy().starts_with("loop") || node.exists() {
            continue;
        }
        let numbers = fs::read_to_string(device.path().join("dev")).unwrap_or_default();
        let parsed = numbers.trim().split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        if let Some((major, minor)) = parsed {
            let _ = mknodat(rustix::fs::CWD, &node, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, makedev(major, minor));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_its_directory() {
        let mounts = "hakobi /w/served fuse rw 0 0\n/dev/loop3 /w/data ext4 rw 0 0\n";
        assert_eq!(device_of(mounts, Path::new("/w/data")).as_deref(), Some("loop3"));
        assert_eq!(device_of(mounts, Path::new("/w/served")), None);
        assert_eq!(device_of(mounts, Path::new("/w")), None);
    }

    #[test]
    fn devices_without_numbers_get_no_node() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["devices/loop7", "devices/sda", "nodes"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("devices/loop7/dev"), "what\n").unwrap();
        add_nodes(&directory.path().join("devices"), &directory.path().join("nodes"));
        assert_eq!(fs::read_dir(directory.path().join("nodes")).unwrap().count(), 0);
    }
}
