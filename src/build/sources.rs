//! The files that the frontend reads from local directories to compile: the Dockerfile, and the ignore files.

use std::io;
use std::path::Path;

use super::input::Input;

/// A file that the frontend looks for, by the directory's name and its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendFile {
    /// The full name: `dockerfile/Dockerfile`.
    pub name: String,
    /// The name of the local directory.
    pub directory: String,
    /// The path in that directory.
    pub path: String,
    /// The bytes of the file. `None` if it does not exist.
    pub content: Option<Vec<u8>>,
}

impl Input {
    /// Returns the Dockerfile. Returns `None` if it is not on this machine or not readable.
    #[must_use]
    pub fn dockerfile(&self) -> Option<Vec<u8>> {
        let (directory, name) = self.directories.get("dockerfile").zip(self.options.get("filename"))?;
        std::fs::read(directory.join(name)).ok()
    }

    /// Returns all these files, the Dockerfile first. Returns `None` if the Dockerfile is not on this machine (BuildKit
    /// `dockerui.Client`: `ReadEntrypoint`, `NamedContext`).
    ///
    /// # Errors
    /// If a file exists but is not readable.
    pub fn frontend_files(&self) -> io::Result<Option<Vec<FrontendFile>>> {
        let (Some(directory), Some(name)) = (self.directories.get("dockerfile"), self.options.get("filename")) else {
            return Ok(None);
        };
        let own_rules = format!("{name}.dockerignore");
        let mut files = vec![file("dockerfile", directory, name)?, file("dockerfile", directory, &own_rules)?];
        if files[0].content.is_none() {
            return Ok(None);
        }
        for (name, directory) in self.directories.iter().filter(|(name, _)| *name != "dockerfile") {
            files.push(file(name, directory, ".dockerignore")?);
        }
        Ok(Some(files))
    }
}

fn file(of: &str, directory: &Path, name: &str) -> io::Result<FrontendFile> {
    let content = match std::fs::read(directory.join(name)) {
        Ok(content) => Some(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(FrontendFile { name: format!("{of}/{name}"), directory: of.to_owned(), path: name.to_owned(), content })
}
