//! The key of a Dockerfile's compiled form.

use std::collections::HashMap;

use crate::build::{Input, frontend_options};
use crate::domain::{Digest, ImageRef};
use crate::engine::buildkit::ExpectedFile;
use crate::hidden::Hidden;
use crate::plan::{CompiledRecord, RecordKey, Syntax, compiled_key};
use crate::run::context::BuildContext;

/// The key of a Dockerfile's compiled form.
pub struct CompiledKey {
    pub key: RecordKey<CompiledRecord>,
    /// The image of the frontend, if the Dockerfile names one.
    pub frontend: Option<String>,
    /// The Dockerfile.
    pub text: Vec<u8>,
    /// The files that the key contains. The session sends these to the frontend.
    pub files: Vec<ExpectedFile>,
}

impl CompiledKey {
    /// Returns the key of a build. Returns `None` if the frontend's result depends on facts that hakobi cannot see, or the key
    /// would contain a secret.
    pub fn new(input: &Input, options: &HashMap<String, String>, platform: &str, hidden: &Hidden) -> Option<Self> {
        // Only the daemon knows the host gateway's address. With `no-cache`, all steps run.
        let of_daemon = options.get("add-hosts").is_some_and(|hosts| hosts.contains("host-gateway"));
        if of_daemon || options.contains_key("no-cache") {
            return None;
        }
        // The digest of a short text with a secret would let others guess the secret.
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

    /// Returns the files that the key contains.
    pub fn files(&self) -> &[ExpectedFile] {
        &self.files
    }

    /// Returns whether the Dockerfile contains a word.
    pub fn says(&self, word: &str) -> bool {
        String::from_utf8_lossy(&self.text).contains(word)
    }

    /// Returns whether the Dockerfile names an image with its digest. Such an image stays the same if its tag moves.
    pub fn pins(&self, reference: &ImageRef) -> bool {
        let Some(digest) = &reference.digest else { return false };
        let pinned = match &reference.tag {
            Some(tag) => format!(":{tag}@{digest}"),
            None => return true,
        };
        String::from_utf8_lossy(&self.text).contains(&pinned)
    }
}

/// Returns the platform for a key if the build requests none: the platform of this machine.
pub fn machine() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

/// Returns the key of the compiled form for the present files. Returns `None` for several platforms, or if the build has no such
/// key.
pub fn compiled_by(context: &BuildContext<'_>, input: &Input, platform: &str) -> Option<CompiledKey> {
    let options = frontend_options(context.build, input, &[]);
    if context.build.platforms.len() > 1 { None } else { CompiledKey::new(input, &options, platform, context.events.hidden()) }
}
