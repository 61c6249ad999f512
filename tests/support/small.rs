//! A file system that is full soon.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of its own, which is full soon.
pub struct Small(PathBuf);

impl Small {
    pub fn mount(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        assert!(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "hakobi-test"]).arg(at).status().unwrap().success());
        Self(at.to_owned())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
