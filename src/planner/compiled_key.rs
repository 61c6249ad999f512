//! What a Dockerfile's compiled form is remembered by.

use std::collections::HashMap;

use crate::build::{Input, frontend_options};
use crate::domain::{Digest, ImageRef};
use crate::engine::buildkit::ExpectedFile;
use crate::hidden::Hidden;
use crate::plan::{CompiledRecord, RecordKey, Syntax, compiled_key};
use crate::run::context::BuildContext;

/// What a Dockerfile's compiled form is remembered by.
pub struct CompiledKey {
    pub key: RecordKey<CompiledRecord>,
    /// The image of the frontend, where the Dockerfile brings one along.
    pub frontend: Option<String>,
    /// The Dockerfile.
    pub text: Vec<u8>,
    /// The files that the key was made of, which the frontend is to be sent.
    pub files: Vec<ExpectedFile>,
}

impl CompiledKey {
    /// Of a build; nothing where what the frontend makes depends on more than can be seen from here.
    pub fn new(input: &Input, options: &HashMap<String, String>, platform: &str, hidden: &Hidden) -> Option<Self> {
        // A host's address that only the daemon knows; a graph all of which is to run.
        let of_daemon = options.get("add-hosts").is_some_and(|hosts| hosts.contains("host-gateway"));
        if of_daemon || options.contains_key("no-cache") {
            return None;
        }
        // A digest of little more than a secret would let it be guessed.
        if options.values().any(|value| hidden.is_in(value.as_bytes())) {
            return None;
        }
        let files = input.frontend_files().ok()??;
        let text = files.first()?.content.clone()?;
        let frontend = match Syntax::detect(&text, options.get("build-arg:BUILDKIT_SYNTAX").map(String::as_str)) {
            Syntax::Own => None,
            Syntax::Image(image) => Some(image),
            Syntax::Other => return None,
        };
        let expected = files.iter().map(|file| ExpectedFile {
            directory: file.directory.clone(),
            path: file.path.clone(),
            content: file.content.as_deref().map(Digest::hash),
        });
        let expected = expected.collect();
        let files = files.iter().map(|file| (&*file.name, file.content.as_deref()));
        let options = options.iter().filter(|(name, _)| *name != "cache-imports").map(|(name, value)| (&**name, &**value));
        Some(Self { key: compiled_key(platform, files, options), frontend, text, files: expected })
    }

    /// The files that it was made of.
    pub fn files(&self) -> &[ExpectedFile] {
        &self.files
    }

    /// Whether a word stands in the Dockerfile.
    pub fn says(&self, word: &str) -> bool {
        String::from_utf8_lossy(&self.text).contains(word)
    }

    /// Whether an image is named with its digest in the Dockerfile, which then holds whatever its tag stands for.
    pub fn pins(&self, reference: &ImageRef) -> bool {
        let Some(digest) = &reference.digest else { return false };
        let pinned = match &reference.tag {
            Some(tag) => format!(":{tag}@{digest}"),
            None => return true,
        };
        String::from_utf8_lossy(&self.text).contains(&pinned)
    }
}

/// A platform as a key has it, where none was asked for: this machine's.
pub fn machine() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

/// What the compiled form of the files that are there now is remembered by.
pub fn compiled_by(context: &BuildContext<'_>, input: &Input, platform: &str) -> Option<CompiledKey> {
    let options = frontend_options(context.build, input, &[]);
    if context.build.platforms.len() > 1 { None } else { CompiledKey::new(input, &options, platform, context.events.hidden()) }
}
