//! What the frontend reads of local directories when it compiles: the Dockerfile, and rules of what it leaves out.

use std::io;
use std::path::Path;

use super::input::Input;

/// A file that the frontend looks for, by the directory's name and its own; nothing where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendFile {
    /// `dockerfile/Dockerfile`.
    pub name: String,
    /// The name of the local directory.
    pub directory: String,
    /// The path in that.
    pub path: String,
    /// Its bytes.
    pub content: Option<Vec<u8>>,
}

impl Input {
    /// The Dockerfile, if it is of this machine and can be read.
    #[must_use]
    pub fn dockerfile(&self) -> Option<Vec<u8>> {
        let (directory, name) = self.directories.get("dockerfile").zip(self.options.get("filename"))?;
        std::fs::read(directory.join(name)).ok()
    }

    /// All of them, the Dockerfile first; nothing where that is not of this machine (BuildKit `dockerui.Client`: `ReadEntrypoint`,
    /// `NamedContext`).
    ///
    /// # Errors
    /// If one of them is there and cannot be read.
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
