//! Resolves the files that hakobi writes for deployments, later steps and a CI's summary page.

use super::environment::Environment;
use super::given::Given;
use crate::ci::{Ci, Provider};
use crate::domain::ImageRef;
use crate::error::{Error, Result};
use crate::settings::HandOffSettings;

/// The only file name that CodeDeploy's actions accept in an artifact.
const DETAIL: &str = "imageDetail.json";

/// Resolves the files from the flags and from the variables of GitHub's runner.
pub fn settings(
    given: Given<'_>,
    environment: &Environment,
    ci: &Ci,
    tags: &[ImageRef],
    is_pushed: bool,
    warnings: &mut Vec<String>,
) -> Result<HandOffSettings> {
    let path = |name: &str| given.text(name).map(|file| environment.resolve(file));
    for name in ["image-definitions", "image-detail", "image-env"] {
        if let Some(file) = given.text(name).filter(|_| !is_pushed) {
            return Err(Error::usage(format!("--{name} {file} requires --push: the file names the image in a registry"))
                .hint("add --push"));
        }
    }
    let image_definitions = path("image-definitions");
    let mut containers = given.list("container-name");
    if image_definitions.is_none() && !containers.is_empty() {
        return Err(Error::usage("--container-name requires --image-definitions"));
    }
    if containers.is_empty() {
        // Most task definitions name the container like the repository.
        containers.extend(tags.first().and_then(|tag| tag.repository.path.rsplit('/').next()).map(str::to_owned));
    }
    let image_detail = path("image-detail");
    if image_detail.as_ref().is_some_and(|path| path.file_name().is_none_or(|name| name != DETAIL)) {
        warnings.push(format!("CodePipeline's blue/green action requires the file name {DETAIL} for --image-detail"));
    }
    let of_github = |name: &str| match ci.provider {
        Provider::GitHubActions => environment.get(name).map(|file| environment.resolve(file)),
        _ => None,
    };
    Ok(HandOffSettings {
        image_definitions,
        containers,
        image_detail,
        variables: path("image-env"),
        summary: path("summary"),
        github_output: of_github("GITHUB_OUTPUT"),
        github_summary: of_github("GITHUB_STEP_SUMMARY"),
    })
}
