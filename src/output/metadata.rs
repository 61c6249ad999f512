//! The files that `docker build` writes for scripts: `--metadata-file` and `--iidfile`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use base64::Engine as _;
use serde_json::{Map, Value};

use super::file::{self, cannot_write};
use crate::domain::{Descriptor, Digest, ImageRef};
use crate::error::{Error, Result};

/// The metadata of a built image.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    /// The digest of the image config.
    pub config_digest: Option<Digest>,
    /// The descriptor of the manifest or index. Its digest is `containerimage.digest`.
    pub descriptor: Option<Descriptor>,
    /// The tags of the image.
    pub names: Vec<ImageRef>,
    /// The daemon's response (`ExporterResponse`). The fields above override its entries.
    pub exporter_response: BTreeMap<String, String>,
}

impl Metadata {
    /// Returns the file's content under buildx's keys. As in buildx, a key without a value is absent.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        let mut out: Map<String, Value> =
            self.exporter_response.iter().map(|(key, value)| (key.clone(), decode(key, value))).collect();
        if let Some(digest) = &self.config_digest {
            out.insert("containerimage.config.digest".into(), digest.to_string().into());
        }
        if let Some(descriptor) = &self.descriptor {
            out.insert("containerimage.digest".into(), descriptor.digest.to_string().into());
            let mut value = serde_json::to_value(descriptor).unwrap_or_default();
            // buildx omits null fields: an image outside an index has no platform, for example.
            if let Some(fields) = value.as_object_mut() {
                fields.retain(|_, field| !field.is_null());
            }
            out.insert("containerimage.descriptor".into(), value);
        }
        if !self.names.is_empty() {
            let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
            out.insert("image.name".into(), names.join(",").into());
        }
        out
    }

    /// Writes the file. A reader sees either the whole file or none of it.
    ///
    /// # Errors
    /// If the file is not writable.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.to_json()).unwrap_or_default();
        file::replace(path, text.as_bytes()).map_err(|error| cannot_write(path, &error))
    }
}

/// Decodes a value by buildx's rule. The base64 of a JSON object, or of a list of objects, becomes JSON, and so does
/// `result.json`. All other values, including empty objects, stay texts.
fn decode(key: &str, value: &str) -> Value {
    let bytes = if key == "result.json" {
        value.as_bytes().to_vec()
    } else {
        base64::engine::general_purpose::STANDARD.decode(value).unwrap_or_default()
    };
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(object)) if !object.is_empty() => Value::Object(object),
        Ok(Value::Array(list)) if !list.is_empty() && list.iter().all(Value::is_object) => Value::Array(list),
        _ => Value::String(value.to_owned()),
    }
}

/// Removes the file at the start of a run, so that it is absent after a failure.
///
/// # Errors
/// If the file exists, but hakobi cannot remove it.
pub fn remove_iid_file(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        // Docker removes a regular file, but not a device such as `/dev/stdout`.
        Ok(there) if !there.is_file() && !there.is_symlink() => Ok(()),
        Ok(_) => std::fs::remove_file(path)
            .map_err(|error| Error::usage(format!("failed to remove the old {}", path.display())).because(&error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(cannot_write(path, &error)),
    }
}

/// Writes the image's ID after a successful build, without a newline.
///
/// # Errors
/// If the file is not writable.
pub fn write_iid_file(path: &Path, id: &str) -> Result<()> {
    file::replace(path, id.as_bytes()).map_err(|error| cannot_write(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(text: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(text)
    }

    #[test]
    fn keys_as_buildx_has_them() {
        let digest = Digest::hash(b"m");
        let metadata = Metadata {
            config_digest: Some(Digest::hash(b"c")),
            descriptor: Some(Descriptor::new(crate::domain::media_type::OCI_MANIFEST, digest, 7)),
            names: vec!["r.example.com/app:1".parse().unwrap(), "r.example.com/app:2".parse().unwrap()],
            exporter_response: BTreeMap::new(),
        };
        insta::assert_snapshot!(serde_json::to_string_pretty(&metadata.to_json()).unwrap());
        assert!(Metadata::default().to_json().is_empty());
    }

    #[test]
    fn values_are_decoded_as_buildx_does() {
        assert_eq!(decode("k", &base64("{\"a\":1}")), serde_json::json!({"a": 1}));
        assert_eq!(decode("k", &base64("[{\"a\":1}]")), serde_json::json!([{"a": 1}]));
        for text in [base64("{}"), base64("[1]"), base64("12"), "docker.io/library/app".to_owned(), String::new()] {
            assert_eq!(decode("k", &text), Value::String(text.clone()));
        }
        assert_eq!(decode("result.json", "{\"a\":1}"), serde_json::json!({"a": 1}));
    }

    #[test]
    fn the_id_file_has_no_newline_and_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("iid");
        remove_iid_file(&path).unwrap();
        write_iid_file(&path, "sha256:ab").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "sha256:ab");
        remove_iid_file(&path).unwrap();
        assert!(!path.exists());
        remove_iid_file(Path::new("/dev/null")).unwrap();
        assert!(Path::new("/dev/null").exists());
    }
}
