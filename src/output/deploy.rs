//! Writes the files that deployments and later steps of a pipeline read about a pushed image: CodePipeline's
//! `imagedefinitions.json` and `imageDetail.json`, variables for a shell, and outputs for GitHub's workflows.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::file::{self, cannot_write, folder};
use crate::domain::{Digest, ImageRef};
use crate::error::{Error, Result};
use crate::redact::redacted;
use crate::settings::HandOffSettings;

/// The largest `imagedefinitions.json` that CodePipeline accepts, in bytes (its file reference, "Image definitions file").
const DEFINITIONS_LIMIT: usize = 100 << 10;

/// A pushed image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployable {
    /// The first tag on the command line.
    pub tag: ImageRef,
    /// The digest of the manifest or index.
    pub digest: Digest,
}

impl Deployable {
    /// Returns the image's reference with its digest, which always names the same image.
    #[must_use]
    pub fn uri(&self) -> String {
        self.tag.repository.digest(&self.digest).to_string()
    }
}

/// Writes all files that the settings ask for. The image must be in its registry.
///
/// # Errors
/// If one of the files is not writable, or has other content than expected.
pub fn hand_off(settings: &HandOffSettings, image: &Deployable) -> Result<()> {
    if let Some(path) = &settings.image_definitions {
        write_image_definitions(path, &settings.containers, image)?;
    }
    if let Some(path) = &settings.image_detail {
        write_image_detail(path, image)?;
    }
    match &settings.variables {
        Some(path) => write_variables(path, image),
        None => Ok(()),
    }
}

/// A container of `imagedefinitions.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Definition {
    name: String,
    #[serde(rename = "imageUri")]
    image_uri: String,
}

/// Writes `imagedefinitions.json` for an ECS deploy action of CodePipeline. It keeps the containers of earlier runs, so that
/// several images of one job share a file.
///
/// # Errors
/// If the file has other content, would become too large, or is not writable.
fn write_image_definitions(path: &Path, containers: &[String], image: &Deployable) -> Result<()> {
    // Two runs of one job may write at the same time. The lock is on the directory, because the file itself is replaced.
    let folder = std::fs::File::open(folder(path)).map_err(|error| cannot_write(path, &error))?;
    folder.lock().map_err(|error| cannot_write(path, &error))?;
    let mut all = definitions(path)?;
    all.retain(|definition| !containers.contains(&definition.name));
    all.extend(containers.iter().map(|name| Definition { name: name.clone(), image_uri: image.uri() }));
    let text = serde_json::to_vec(&all).unwrap_or_default();
    if text.len() > DEFINITIONS_LIMIT {
        return Err(Error::usage(format!("{} would exceed CodePipeline's limit of 100 KB", path.display())));
    }
    file::replace(path, &text).map_err(|error| cannot_write(path, &error))
}

/// Returns the containers that the file already has.
fn definitions(path: &Path) -> Result<Vec<Definition>> {
    match std::fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Ok(Vec::new()),
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            let what = format!("{} exists, but holds no image definitions", path.display());
            Error::usage(what).because(&error).hint("name another file with --image-definitions, or remove this one")
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::usage(format!("failed to read {}", path.display())).because(&error)),
    }
}

/// Checks, before the build, that all requested files are likely to be writable.
///
/// # Errors
/// If a directory does not exist, or a file has other content than expected.
pub fn can_hand_off(settings: &HandOffSettings) -> Result<()> {
    let files = [&settings.image_definitions, &settings.image_detail, &settings.variables, &settings.summary];
    file::can_write(files.into_iter().flatten().map(|path| &**path))?;
    settings.image_definitions.as_ref().map_or(Ok(()), |path| definitions(path).map(drop))
}

/// Writes `imageDetail.json` for a blue/green deploy action of CodePipeline.
///
/// # Errors
/// If the file is not writable.
fn write_image_detail(path: &Path, image: &Deployable) -> Result<()> {
    let text = serde_json::json!({ "ImageURI": image.uri() }).to_string();
    file::replace(path, text.as_bytes()).map_err(|error| cannot_write(path, &error))
}

/// Writes variables that a shell reads with `.`. A buildspec exports them to later actions of its pipeline.
///
/// # Errors
/// If the file is not writable.
fn write_variables(path: &Path, image: &Deployable) -> Result<()> {
    let mut text = String::new();
    let tag = image.tag.tag.as_deref().unwrap_or_default();
    // The values need no quotes: none has a character that is special in a shell.
    for (name, value) in [("IMAGE_URI", image.uri()), ("IMAGE_DIGEST", image.digest.to_string()), ("IMAGE_TAG", tag.to_owned())] {
        let _ = writeln!(text, "export {name}={value}");
    }
    file::replace(path, text.as_bytes()).map_err(|error| cannot_write(path, &error))
}

/// Adds `imageid`, `digest` and `metadata` to the outputs of a step of a GitHub workflow, under the names of build-push-action.
///
/// # Errors
/// If the file is not writable.
pub fn add_outputs(path: &Path, id: &str, digest: &str, metadata: &Value) -> Result<()> {
    let metadata = serde_json::to_string_pretty(metadata).unwrap_or_default();
    // GitHub reads each further line as another output.
    let (id, digest) = (super::text::title(id), super::text::title(digest));
    // The end marker is random, so that no value contains it.
    let end = format!("hakobi-{:032x}", rand::random::<u128>());
    add(path, &format!("imageid={id}\ndigest={digest}\nmetadata<<{end}\n{metadata}\n{end}\n"))
}

/// Writes the run's summary. A reader sees either the whole text or none of it.
///
/// # Errors
/// If the file is not writable.
pub fn write_summary(path: &Path, text: &str) -> Result<()> {
    file::replace(path, text.as_bytes()).map_err(|error| cannot_write(path, &error))
}

/// Appends text to a file that other programs also write to.
///
/// # Errors
/// If the file is not writable.
pub fn add(path: &Path, text: &str) -> Result<()> {
    let added =
        OpenOptions::new().append(true).create(true).open(path).and_then(|mut file| file.write_all(redacted(text).as_bytes()));
    added.map_err(|error| cannot_write(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(tag: &str) -> Deployable {
        Deployable { tag: tag.parse().unwrap(), digest: Digest::hash(b"manifest") }
    }

    fn containers(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn several_images_come_into_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("imagedefinitions.json");
        write_image_definitions(&path, &containers(&["web", "worker"]), &image("r.example.com/app:1")).unwrap();
        write_image_definitions(&path, &containers(&["proxy", "worker"]), &image("r.example.com/proxy:1")).unwrap();
        let digest = Digest::hash(b"manifest");
        let expected = format!(
            "[{{\"name\":\"web\",\"imageUri\":\"r.example.com/app@{digest}\"}},\
             {{\"name\":\"proxy\",\"imageUri\":\"r.example.com/proxy@{digest}\"}},\
             {{\"name\":\"worker\",\"imageUri\":\"r.example.com/proxy@{digest}\"}}]"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        std::fs::write(&path, "{\"ImageURI\":\"x\"}").unwrap();
        let error = write_image_definitions(&path, &containers(&["web"]), &image("r.example.com/app:1")).unwrap_err();
        assert!(error.message().contains("holds no image definitions"), "{error:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"ImageURI\":\"x\"}", "nothing of the user's is lost");
    }

    #[test]
    fn a_shell_and_a_workflow_read_what_they_expect() {
        let folder = tempfile::tempdir().unwrap();
        let (variables, outputs) = (folder.path().join("image.env"), folder.path().join("outputs"));
        let digest = Digest::hash(b"manifest");
        write_variables(&variables, &image("r.example.com/app:1")).unwrap();
        let expected = format!("export IMAGE_URI=r.example.com/app@{digest}\nexport IMAGE_DIGEST={digest}\nexport IMAGE_TAG=1\n");
        assert_eq!(std::fs::read_to_string(&variables).unwrap(), expected);
        std::fs::write(&outputs, "before=1\n").unwrap();
        add_outputs(&outputs, "sha256:id", "sha256:d", &serde_json::json!({"a": 1})).unwrap();
        let text = std::fs::read_to_string(&outputs).unwrap();
        assert!(text.starts_with("before=1\nimageid=sha256:id\ndigest=sha256:d\nmetadata<<hakobi-"), "{text}");
        assert_eq!(text.lines().count(), 8, "{text}");
    }

    #[test]
    fn the_detail_names_the_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("imageDetail.json");
        write_image_detail(&path, &image("r.example.com/app:1")).unwrap();
        let expected = format!("{{\"ImageURI\":\"r.example.com/app@{}\"}}", Digest::hash(b"manifest"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }
}
