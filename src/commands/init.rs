//! `hakobi init CI`: writes the example for a CI into this project, with the project's names.

use std::path::{Path, PathBuf};

use crate::domain::ImageRef;
use crate::error::{Error, Result};
use crate::registry::EcrHost;
use crate::settings::{InitSettings, InitTarget};

/// The placeholder for the user's repository in the examples.
const REPOSITORY: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app";
const BUCKET: &str = "your-bucket";
const ACCOUNT: &str = "123456789012";
const REGION: &str = "eu-west-1";

/// Returns the path at which a CI looks for its file, and the example.
fn example(target: InitTarget) -> (&'static str, &'static str) {
    match target {
        InitTarget::CodeBuild => ("buildspec.yml", include_str!("../../buildspec-examples/buildspec.yml")),
        InitTarget::Travis => (".travis.yml", include_str!("../../buildspec-examples/.travis.yml")),
        InitTarget::Jenkins => ("Jenkinsfile", include_str!("../../buildspec-examples/Jenkinsfile")),
        InitTarget::GitHub => (".github/workflows/image.yml", include_str!("../../buildspec-examples/github-workflow.yml")),
        InitTarget::GitLab => (".gitlab-ci.yml", include_str!("../../buildspec-examples/.gitlab-ci.yml")),
    }
}

/// Writes the file. Returns a text that says what the file is and what the user must still fill in.
///
/// # Errors
/// If the file exists and may not be replaced, or cannot be written.
pub fn init(settings: &InitSettings) -> Result<String> {
    let (name, text) = example(settings.target);
    let path: PathBuf = settings.directory.join(name);
    if path.exists() && !settings.force {
        return Err(Error::usage(format!("{} already exists", path.display())).hint("overwrite it with --force"));
    }
    let mut left = Vec::new();
    let mut text = text.to_owned();
    // The job's roles and region are those of the repository. They are replaced first, so that they change nothing in the user's
    // own values.
    let image = settings.repository.as_deref().and_then(|repository| repository.parse::<ImageRef>().ok());
    if let Some(ecr) = image.and_then(|image| EcrHost::parse(&image.repository.host)) {
        let parts = text.split(REPOSITORY).map(|part| part.replace(ACCOUNT, &ecr.account).replace(REGION, &ecr.region));
        text = parts.collect::<Vec<_>>().join(REPOSITORY);
    }
    for (given, place, flag) in [(&settings.repository, REPOSITORY, "--repository"), (&settings.bucket, BUCKET, "--bucket")] {
        match given {
            Some(given) if text.contains(place) => text = text.replace(place, given),
            Some(given) => return Err(Error::usage(format!("{flag} {given} has no effect: {name} has no field for it"))),
            None if text.contains(place) => left.push(format!("  {place} ({flag})")),
            None => {}
        }
    }
    let written = write(&path, &text);
    written.map_err(|error| Error::usage(format!("failed to write {}", path.display())).because(&error))?;
    let mut out = format!("wrote {}\n", path.display());
    if !left.is_empty() {
        out.push_str(&format!("fill in these values:\n{}\n", left.join("\n")));
    }
    out.push_str("see buildspec-examples/README.md of hakobi for the installation and the permissions of the job's role\n");
    if !settings.directory.join("Dockerfile").exists() {
        out.push_str("this directory has no Dockerfile yet: the file expects one at the top of the project\n");
    }
    Ok(out)
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(directory: &Path, target: InitTarget) -> InitSettings {
        InitSettings { target, directory: directory.to_owned(), repository: None, bucket: None, force: false }
    }

    #[test]
    fn every_ci_gets_its_file_with_the_names_put_in() {
        for target in [InitTarget::CodeBuild, InitTarget::Travis, InitTarget::Jenkins, InitTarget::GitHub] {
            let folder = tempfile::tempdir().unwrap();
            let repository = Some("999999999999.dkr.ecr.us-east-1.amazonaws.com/shop".to_owned());
            let told = init(&InitSettings { repository, ..settings(folder.path(), target) }).unwrap();
            let (name, _) = example(target);
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(text.contains("999999999999.dkr.ecr.us-east-1.amazonaws.com/shop"), "{text}");
            assert!(!text.contains(ACCOUNT) && !text.contains(REGION), "{text}");
            assert!(told.starts_with("wrote ") && !told.contains("--repository"), "{told}");
            assert_eq!(told.contains("--bucket"), text.contains(BUCKET), "{told}");
        }
    }

    #[test]
    fn what_is_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("buildspec.yml"), "mine").unwrap();
        let mut wanted = settings(folder.path(), InitTarget::CodeBuild);
        assert!(init(&wanted).unwrap_err().message().contains("already exists"));
        assert_eq!(std::fs::read_to_string(folder.path().join("buildspec.yml")).unwrap(), "mine");
        wanted.force = true;
        wanted.repository = Some("999999999999.dkr.ecr.us-east-1.amazonaws.com/shop".to_owned());
        wanted.bucket = Some("layers-eu-west-1".to_owned());
        init(&wanted).unwrap();
        let text = std::fs::read_to_string(folder.path().join("buildspec.yml")).unwrap();
        assert!(text.contains("CACHE_BUCKET: layers-eu-west-1"), "{text}");
        assert!(std::fs::read_to_string(folder.path().join("buildspec.yml")).unwrap().contains("hakobi build"));
        (wanted.target, wanted.bucket) = (InitTarget::Travis, Some("layers".to_owned()));
        assert!(init(&wanted).unwrap_err().message().contains("has no field for it"));
    }

    #[test]
    fn gitlab_names_the_registry_itself() {
        let folder = tempfile::tempdir().unwrap();
        let mut wanted = settings(folder.path(), InitTarget::GitLab);
        let told = init(&wanted).unwrap();
        assert!(!told.contains("fill in"), "{told}");
        let text = std::fs::read_to_string(folder.path().join(".gitlab-ci.yml")).unwrap();
        assert!(text.contains("$CI_REGISTRY_IMAGE:latest"), "{text}");
        (wanted.repository, wanted.force) = (Some("registry.example.com/shop".to_owned()), true);
        assert!(init(&wanted).unwrap_err().message().contains("has no field for it"));
    }
}
