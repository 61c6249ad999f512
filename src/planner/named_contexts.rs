//! Images as named contexts: the frontend leaves their tags as they are, so that nothing in the graph would say which image it is.

use crate::build::Input;
use crate::domain::ImageRef;
use crate::engine::Docker;
use crate::planner::recall::present;
use crate::run::context::BuildContext;

/// How the frontend is told of such a context.
pub const SCHEME: &str = "docker-image://";

/// Gives the frontend images with the digests that their tags stand for now. An image that the daemon has under that name goes first
/// there, and is left to it, as is one whose registry does not answer.
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
