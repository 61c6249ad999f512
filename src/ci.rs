//! What the CI says of this run: which service it is, and the commit it works on.
//!
//! Variables come in through a function, so that nothing here reads the process's environment.

use std::path::Path;
use std::process::{Command, Stdio};

/// The service that runs us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// AWS CodeBuild.
    CodeBuild,
    /// Travis CI.
    Travis,
    /// Jenkins.
    Jenkins,
    /// GitHub Actions.
    GitHubActions,
    /// GitLab CI.
    GitLab,
    /// None of these: someone's own machine.
    Local,
}

/// What the CI says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ci {
    /// The service.
    pub provider: Provider,
    /// The commit that is built, in full, where the service names one.
    pub commit: Option<String>,
}

impl Ci {
    /// Reads what the service says from its variables. An empty variable is one that is not set.
    #[must_use]
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let is_true = |name: &str| get(name).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1");
        // CodeBuild also hosts runners of GitHub and GitLab: there, what the guest says is what the run is about.
        let provider = if is_true("GITHUB_ACTIONS") {
            Provider::GitHubActions
        } else if is_true("GITLAB_CI") {
            Provider::GitLab
        } else if is_true("TRAVIS") {
            Provider::Travis
        } else if get("CODEBUILD_BUILD_ID").is_some() {
            Provider::CodeBuild
        } else if get("JENKINS_URL").is_some() || get("JENKINS_HOME").is_some() {
            Provider::Jenkins
        } else {
            Provider::Local
        };
        let names: &[&str] = match provider {
            Provider::CodeBuild => &["CODEBUILD_RESOLVED_SOURCE_VERSION"],
            // TRAVIS_COMMIT of a pull request is the merge that Travis made up; no one can look that up later.
            Provider::Travis => &["TRAVIS_PULL_REQUEST_SHA", "TRAVIS_COMMIT"],
            Provider::Jenkins => &["GIT_COMMIT"],
            Provider::GitHubActions => &["GITHUB_SHA"],
            Provider::GitLab => &["CI_COMMIT_SHA"],
            Provider::Local => &[],
        };
        // CodeBuild gives the version of an S3 object under the same name: only what is a commit counts.
        let commit = names.iter().filter_map(|name| get(name)).find(|value| is_commit(value));
        Self { provider, commit }
    }

    /// The commit: the service's word, else what is checked out in `directory`.
    #[must_use]
    pub fn commit_or_head(&self, directory: &Path) -> Option<String> {
        self.commit.clone().or_else(|| head(directory))
    }
}

/// What git has checked out in a directory; nothing where there is no git or no commit.
fn head(directory: &Path) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(["rev-parse", "--verify", "HEAD"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && is_commit(&text)).then_some(text)
}

/// SHA-1 or SHA-256 in hex.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const A: &str = "0123456789012345678901234567890123456789";
    const B: &str = "abcdefabcdefabcdefabcdefabcdefabcdefabcd";

    fn detect(variables: &[(&str, &str)]) -> Ci {
        let variables: BTreeMap<String, String> = variables.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Ci::detect(|name| variables.get(name).cloned())
    }

    #[test]
    fn each_service_names_its_commit() {
        for (variables, provider, commit) in [
            (&[("CODEBUILD_BUILD_ID", "x:1"), ("CODEBUILD_RESOLVED_SOURCE_VERSION", A)][..], Provider::CodeBuild, Some(A)),
            (&[("CODEBUILD_BUILD_ID", "x:1"), ("CODEBUILD_RESOLVED_SOURCE_VERSION", "s3Version")], Provider::CodeBuild, None),
            (&[("TRAVIS", "true"), ("TRAVIS_COMMIT", A), ("TRAVIS_PULL_REQUEST_SHA", B)], Provider::Travis, Some(B)),
            (&[("TRAVIS", "true"), ("TRAVIS_COMMIT", A), ("TRAVIS_PULL_REQUEST_SHA", "")], Provider::Travis, Some(A)),
            (&[("JENKINS_URL", "http://j/"), ("GIT_COMMIT", A)], Provider::Jenkins, Some(A)),
            (&[("GITHUB_ACTIONS", "true"), ("GITHUB_SHA", A)], Provider::GitHubActions, Some(A)),
            (&[("GITHUB_ACTIONS", "true"), ("GITHUB_SHA", A), ("CODEBUILD_BUILD_ID", "x")], Provider::GitHubActions, Some(A)),
            (&[("GITLAB_CI", "true"), ("CI_COMMIT_SHA", A)], Provider::GitLab, Some(A)),
            (&[("GIT_COMMIT", A)], Provider::Local, None),
            (&[("CODEBUILD_BUILD_ID", "")], Provider::Local, None),
        ] {
            let ci = detect(variables);
            assert_eq!((ci.provider, ci.commit.as_deref()), (provider, commit), "{variables:?}");
        }
    }

    #[test]
    fn without_a_service_git_is_asked() {
        let directory = tempfile::tempdir().expect("a directory");
        let local = detect(&[]);
        assert_eq!(local.commit_or_head(directory.path()), None);
        let git = |arguments: &[&str]| {
            let status = Command::new("git").arg("-C").arg(directory.path()).args(arguments).stdout(Stdio::null()).status();
            assert!(status.is_ok_and(|status| status.success()), "git {arguments:?}");
        };
        git(&["init", "-q"]);
        assert_eq!(local.commit_or_head(directory.path()), None, "no commit yet");
        git(&[
            "-c",
            "user.name=x",
            "-c",
            "user.email=x@x",
            "-c",
            "core.hooksPath=/dev/null",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "x",
        ]);
        assert!(local.commit_or_head(directory.path()).is_some_and(|commit| is_commit(&commit)));
        let told = detect(&[("GITHUB_ACTIONS", "true"), ("GITHUB_SHA", A)]);
        assert_eq!(told.commit_or_head(directory.path()).as_deref(), Some(A), "the service's word comes first");
    }
}
