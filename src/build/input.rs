//! The context and the Dockerfile, in the form that the daemon gets (buildx `loadInputs`).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::engine::buildkit::{LocalDirs, Uploads};
use crate::error::{Error, Result};
use crate::settings::{BuildSettings, ContextSource, DockerfileSource, NamedContext};
use crate::transfer::{ByteStream, Scratch};

/// The number of bytes that distinguish an archive from a Dockerfile (docker `build.archiveHeaderSize`).
const HEADER: usize = 512;

/// The maximum size of a Dockerfile on standard input or behind a URL, in bytes.
const DOCKERFILE_LIMIT: u64 = 2 << 20;

/// The inputs of the session and the options of the frontend. Temporary directories exist as long as this value.
#[derive(Default)]
pub struct Input {
    /// Local directories.
    pub directories: LocalDirs,
    /// A context on standard input.
    pub uploads: Uploads,
    /// The frontend's options: `context`, `filename`, `dockerfilekey`, `context:NAME`.
    pub options: BTreeMap<String, String>,
    /// The key of the daemon's copy of the context.
    pub shared_key: String,
    temporary: Vec<Scratch>,
}

impl Input {
    /// Opens the context and the Dockerfile. Reads standard input if it is one of them.
    ///
    /// # Errors
    /// If one of them is unusable.
    pub async fn open(settings: &BuildSettings, stdin: impl AsyncRead + Send + Unpin + 'static) -> Result<Self> {
        let mut input = Self::default();
        match &settings.context {
            ContextSource::Directory(path) => input.directory(path, &settings.dockerfile, stdin).await?,
            ContextSource::Stdin => input.stdin(&settings.dockerfile, stdin).await?,
            ContextSource::Remote(url) => input.remote(url, &settings.dockerfile, stdin).await?,
        }
        if let DockerfileSource::Remote(url) = &settings.dockerfile {
            let text = fetch(url).await?;
            input.inline(&text)?;
        }
        for (name, context) in &settings.named_contexts {
            let value = match context {
                NamedContext::Directory(path) => {
                    // These two names have another meaning (buildx `loadInputs`).
                    let local = if matches!(&**name, "context" | "dockerfile") { format!("_{name}") } else { name.clone() };
                    input.directories.add(local.clone(), path.clone());
                    format!("local:{local}")
                }
                NamedContext::Frontend(value) => value.clone(),
                NamedContext::OciLayout(path) => {
                    return Err(Error::usage(format!(
                        "--build-context {name}=oci-layout://{path}: OCI layouts cannot be used as contexts yet"
                    ))
                    .hint("push the image to a registry and use docker-image://"));
                }
            };
            input.options.insert(format!("context:{name}"), value);
        }
        Ok(input)
    }

    async fn directory(&mut self, path: &Path, dockerfile: &DockerfileSource, stdin: impl AsyncRead + Unpin) -> Result<()> {
        readable(path)?;
        self.directories.add("context", path);
        self.shared_key = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match dockerfile {
            DockerfileSource::Default => self.dockerfile_in(path, Path::new("Dockerfile")),
            DockerfileSource::Path(file) => {
                let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                self.dockerfile_in(parent, Path::new(file.file_name().unwrap_or_default()))
            }
            DockerfileSource::Stdin => {
                let text = read_limited(stdin, "the Dockerfile on standard input").await?;
                self.inline(&text)
            }
            DockerfileSource::Remote(_) => Ok(()),
        }
    }

    async fn stdin(&mut self, dockerfile: &DockerfileSource, mut stdin: impl AsyncRead + Send + Unpin + 'static) -> Result<()> {
        let mut header = Vec::new();
        (&mut stdin)
            .take(2 * HEADER as u64)
            .read_to_end(&mut header)
            .await
            .map_err(|error| Error::usage("failed to read the context on standard input").because(&error))?;
        if header.is_empty() {
            return Err(
                Error::usage("the context on standard input is empty").hint("pipe a tar archive or a Dockerfile into hakobi")
            );
        }
        let whole = std::io::Cursor::new(header.clone()).chain(stdin);
        if is_archive(&header) {
            let url = self.uploads.add(Box::pin(whole) as ByteStream);
            self.options.insert("context".to_owned(), url);
            match dockerfile {
                DockerfileSource::Path(path) => {
                    drop(self.options.insert("filename".to_owned(), path.to_string_lossy().into_owned()))
                }
                DockerfileSource::Stdin => {
                    return Err(Error::usage("standard input cannot be both the build context and the Dockerfile"));
                }
                DockerfileSource::Default | DockerfileSource::Remote(_) => {}
            }
            return Ok(());
        }
        if !matches!(dockerfile, DockerfileSource::Default) {
            return Err(Error::usage("standard input holds a Dockerfile, but -f names another")
                .hint("to send a context with it, pipe a tar archive"));
        }
        let text = read_limited(whole, "the Dockerfile on standard input").await?;
        let empty = self.temporary_directory()?;
        self.directories.add("context", empty);
        self.inline(&text)
    }

    async fn remote(&mut self, url: &str, dockerfile: &DockerfileSource, stdin: impl AsyncRead + Unpin) -> Result<()> {
        self.options.insert("context".to_owned(), url.to_owned());
        match dockerfile {
            DockerfileSource::Stdin => {
                let text = read_limited(stdin, "the Dockerfile on standard input").await?;
                self.inline(&text)
            }
            DockerfileSource::Path(path) if path.is_absolute() => {
                self.options.insert("dockerfilekey".to_owned(), "dockerfile".to_owned());
                self.dockerfile_in(path.parent().unwrap_or(Path::new("/")), Path::new(path.file_name().unwrap_or_default()))
            }
            DockerfileSource::Path(path) => {
                self.options.insert("filename".to_owned(), path.to_string_lossy().into_owned());
                Ok(())
            }
            DockerfileSource::Default | DockerfileSource::Remote(_) => Ok(()),
        }
    }

    /// Adds a Dockerfile that is a local file.
    fn dockerfile_in(&mut self, directory: &Path, name: &Path) -> Result<()> {
        let mut name = name.to_owned();
        let lower = PathBuf::from("dockerfile");
        if name == Path::new("Dockerfile") && !directory.join(&name).exists() && directory.join(&lower).exists() {
            name = lower;
        }
        let path = directory.join(&name);
        std::fs::File::open(&path).map_err(|error| {
            let error = Error::usage(format!("failed to read the Dockerfile {}", path.display())).because(&error);
            error.hint("name it with -f, relative to the working directory and not to the context")
        })?;
        self.directories.add("dockerfile", directory);
        self.options.insert("filename".to_owned(), name.to_string_lossy().into_owned());
        Ok(())
    }

    /// Adds a Dockerfile that is a text.
    fn inline(&mut self, text: &[u8]) -> Result<()> {
        let directory = self.temporary_directory()?;
        std::fs::File::create(directory.join("Dockerfile"))
            .and_then(|mut file| file.write_all(text))
            .map_err(|error| Error::usage("failed to write the Dockerfile to a temporary file").because(&error))?;
        self.directories.add("dockerfile", directory);
        self.options.insert("filename".to_owned(), "Dockerfile".to_owned());
        self.options.insert("dockerfilekey".to_owned(), "dockerfile".to_owned());
        Ok(())
    }

    fn temporary_directory(&mut self) -> Result<PathBuf> {
        let directory = Scratch::new().map_err(|error| {
            Error::usage("cannot create a temporary directory").because(&error).hint("set TMPDIR to another directory")
        })?;
        let path = directory.path().to_owned();
        self.temporary.push(directory);
        Ok(path)
    }
}

fn readable(path: &Path) -> Result<()> {
    std::fs::read_dir(path)
        .map(|_| ())
        .map_err(|error| Error::usage(format!("failed to read the build context {}", path.display())).because(&error))
}

async fn read_limited(mut from: impl AsyncRead + Unpin, what: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    (&mut from)
        .take(DOCKERFILE_LIMIT + 1)
        .read_to_end(&mut text)
        .await
        .map_err(|error| Error::usage(format!("failed to read {what}")).because(&error))?;
    if text.len() as u64 > DOCKERFILE_LIMIT {
        return Err(Error::usage(format!("{what} is larger than {} MiB", DOCKERFILE_LIMIT >> 20)));
    }
    if text.is_empty() {
        return Err(Error::usage(format!("{what} is empty")));
    }
    Ok(text)
}

async fn fetch(url: &str) -> Result<Vec<u8>> {
    let failed =
        |error: reqwest::Error| Error::usage(format!("failed to fetch the Dockerfile {url}")).because(&error.without_url());
    let response = reqwest::get(url).await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    let body = response.bytes().await.map_err(failed)?;
    read_limited(&body[..], "the Dockerfile behind the URL").await
}

/// Returns whether the bytes are an archive. As in Docker, the first bytes show a compressed stream, and the header's checksum
/// shows a tar.
fn is_archive(header: &[u8]) -> bool {
    const COMPRESSED: [&[u8]; 4] = [b"BZh", &[0x1f, 0x8b, 0x08], &[0xfd, b'7', b'z', b'X', b'Z', 0], &[0x28, 0xb5, 0x2f, 0xfd]];
    COMPRESSED.iter().any(|magic| header.starts_with(magic)) || is_tar(header)
}

fn is_tar(header: &[u8]) -> bool {
    let Some(block) = header.get(..HEADER) else { return false };
    let stored =
        block[148..156].iter().filter(|byte| byte.is_ascii_digit()).fold(0u32, |sum, byte| sum * 8 + u32::from(byte - b'0'));
    let sum: u32 = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
    sum == stored && block[0] != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_from_dockerfiles() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_cksum();
        archive.append_data(&mut header, "Dockerfile", &b"x"[..]).expect("written");
        assert!(is_archive(&archive.into_inner().expect("finished")));
        assert!(is_archive(&[0x1f, 0x8b, 0x08, 0]));
        assert!(!is_archive(b"FROM scratch\n"));
        assert!(!is_archive(&[0; 1024]));
    }
}
