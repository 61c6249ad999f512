//! Resolves named contexts that are images: the frontend does not resolve their tags, so the graph would not say which image it
//! uses.

use crate::build::Input;
use crate::domain::ImageRef;
use crate::engine::Docker;
use crate::planner::recall::present;
use crate::run::context::BuildContext;

/// The prefix of such a context in the frontend's options.
pub const SCHEME: &str = "docker-image://";

/// Adds the current digests to images in named contexts. If the daemon has an image of that name, the tag stays as it is, because
/// the daemon prefers that image. It also stays if the registry does not answer.
pub async fn resolve_contexts(context: &BuildContext<'_>, input: &mut Input, docker: Option<&Docker>) {
    if !context.plans(input) {
        return;
    }
    let pulls = context.build.frontend_options.get("image-resolve-mode").is_some_and(|mode| mode == "pull");
    for (name, value) in &mut input.options {
        let Some(image) = value.strip_prefix(SCHEME).filter(|image| name.starts_with("context:") && *image != "scratch") else {
            continue;
        };
        let Ok(reference) = image.parse::<ImageRef>() else { continue };
        if reference.digest.is_some() {
            continue;
        }
        if let Some(docker) = docker.filter(|_| !pulls)
            && !matches!(docker.image_layers(&reference.to_string()).await, Ok(None))
        {
            continue;
        }
        if let Ok(Some(digest)) = present(&context.registries, image).await {
            *value = format!("{SCHEME}{image}@{digest}");
        }
    }
}
