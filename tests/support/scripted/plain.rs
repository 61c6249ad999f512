//! The oracle: builds a directory's image on a scripted daemon with an empty cache, without hakobi.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::compile::compile;
use super::files::{Files, Kind};
use super::layers::{self, Outgoing, Result};
use super::registry::Image;
use super::run::{Locals, Solver};
use super::session::Wanted;

/// The local directories of this machine.
struct OfFolder(PathBuf);

#[tonic::async_trait]
impl Locals for OfFolder {
    async fn files(&self, wanted: &Wanted) -> Result<Files> {
        let mut files = Files::of_folder(&self.0);
        let is_wanted = |path: &str| {
            wanted.follow.is_empty()
                || wanted.follow.iter().any(|follow| {
                    path == follow || path.starts_with(&format!("{follow}/")) || follow.starts_with(&format!("{path}/"))
                })
        };
        files.0.retain(|path, _| is_wanted(path));
        Ok(files)
    }
}

/// Builds a directory's Dockerfile on a new daemon.
pub async fn plain(folder: &Path) -> Result<Image> {
    let solver = Solver::default();
    let text = std::fs::read_to_string(folder.join("Dockerfile")).unwrap();
    let compiled = compile(&solver.client, &text, None, "").await?;
    let layers = solver.solve(&compiled.definition, &OfFolder(folder.to_owned()), &|_| {}).await?;
    let image = Outgoing::new(&compiled.config, layers, "2024-01-01T00:00:00Z")?;
    let files = layers::files(&solver.client, &image.layers).await?;
    let config = serde_json::from_slice(&image.config).unwrap();
    Ok(Image { files, config, layers: image.layers.len() })
}

/// Fails the test unless two images have the same files, config and number of layers. It ignores times, because each build has
/// its own, and a reused layer has those of an earlier build.
#[track_caller]
pub fn same_image(ours: &Image, plain: &Image, what: &str) {
    let shown = |image: &Image| {
        let nodes = image.files.0.iter().map(|(path, node)| match &node.kind {
            Kind::File(content) => format!("{path} {:o} {:?}", node.mode, String::from_utf8_lossy(content)),
            Kind::Directory => format!("{path}/ {:o}", node.mode),
        });
        nodes.collect::<Vec<_>>()
    };
    let (our_files, plain_files) = (shown(ours), shown(plain));
    let extra: Vec<_> = our_files.iter().filter(|node| !plain_files.contains(node)).collect();
    let missing: Vec<_> = plain_files.iter().filter(|node| !our_files.contains(node)).collect();
    assert!(
        extra.is_empty() && missing.is_empty(),
        "{what}: only in hakobi's image {extra:#?}, only in the plain one {missing:#?}"
    );
    assert_eq!(timeless(&ours.config), timeless(&plain.config), "{what}");
    assert_eq!(ours.layers, plain.layers, "{what}");
}

/// Returns an image config without times, and without the digests of layers, which depend on times.
fn timeless(config: &Value) -> Value {
    let mut config = config.clone();
    let object = config.as_object_mut().unwrap();
    object.remove("created");
    object.remove("rootfs");
    for entry in object.get_mut("history").and_then(Value::as_array_mut).into_iter().flatten() {
        entry.as_object_mut().unwrap().remove("created");
    }
    config
}
