//! Reads the base images of a build from their registries or the daemon.

use futures::future::join_all;

use crate::domain::{DiffId, Digest, ImageRef, Platform};
use crate::engine::Docker;
use crate::graph::{Graph, Op};
use crate::handover::{KnownImage, load};
use crate::plan::Layer;
use crate::run::context::BuildContext;

/// Reads the layers of a base image: from the daemon if its name has no digest, and otherwise from its registry. Returns `None` if
/// the step is no image. The inner error says why the layers are not known.
#[allow(clippy::type_complexity, reason = "read once")]
pub async fn base(
    context: &BuildContext<'_>,
    op: &Op,
    docker: Option<&Docker>,
) -> Option<(Digest, std::result::Result<(Vec<DiffId>, Option<KnownImage>), String>)> {
    let name = op.image()?;
    let found = async {
        let reference: ImageRef = name.parse().map_err(|_| format!("{name} is not the name of an image"))?;
        if reference.digest.is_none() {
            // The frontend adds a digest to each name that it looks up in a registry.
            let Some(docker) = docker else { return Err(format!("{name} is an image in the daemon")) };
            let layers = docker.image_layers(name).await.map_err(|error| error.to_string())?;
            return layers.map(|layers| (layers, None)).ok_or_else(|| format!("the daemon has no image {name}"));
        }
        let platform = op.op.platform.as_ref().map(|platform| Platform {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
        });
        let mut images = load(&context.registries, &reference, platform.as_ref()).await.map_err(|error| error.to_string())?;
        if images.len() > 1 {
            let variant = platform.map(|platform| platform.variant).unwrap_or_default();
            images.retain(|image| serde_json::from_slice::<Platform>(&image.config).is_ok_and(|own| own.variant == variant));
        }
        match (images.pop(), images.is_empty()) {
            (Some(image), true) => Ok((image.diff_ids.clone(), Some(image))),
            (Some(_), false) => Err(format!("{name} has several images for this platform")),
            (None, _) => Err(format!("{name} has no image for this platform")),
        }
    };
    Some((op.digest.clone(), found.await))
}

/// Returns the base images that their registries have. hakobi pushes the layers of the others like new layers.
pub async fn bases(context: &BuildContext<'_>, graph: &Graph) -> Vec<KnownImage> {
    let sources = graph.below(graph.result()).into_iter().filter(|op| op.inputs.is_empty());
    let found = join_all(sources.map(|op| base(context, op, None))).await;
    found.into_iter().flatten().filter_map(|(_, image)| image.ok()?.1).collect()
}

/// Returns the layers of a base image as records contain them.
pub fn layers(base: &KnownImage) -> Vec<Layer> {
    let layers = base.manifest.layers.iter().zip(&base.diff_ids);
    layers.map(|(blob, diff_id)| Layer { blob: blob.clone().bare(), diff_id: diff_id.clone(), created: None }).collect()
}
