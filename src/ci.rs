//! Detects the CI: the service, the commit of the run, and the cache scopes that it may use.
//!
//! The caller passes a function that returns variables. This module therefore never reads the process's environment.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::settings::CiSettings;

/// The CI service.
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
    /// None of the above, such as a developer's machine.
    Local,
}

impl Provider {
    /// Returns the name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CodeBuild => "codebuild",
            Self::Travis => "travis",
            Self::Jenkins => "jenkins",
            Self::GitHubActions => "github",
            Self::GitLab => "gitlab",
            Self::Local => "local",
        }
    }
}

/// The information about the CI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ci {
    /// The service.
    pub provider: Provider,
    /// The full commit of the build, if the service names one.
    pub commit: Option<String>,
    /// The cache scopes.
    pub scope: Scope,
    /// Whether the job has its project's secrets. Pull requests of forks do not have them, if the service says so.
    pub has_secrets: bool,
}

/// The cache scopes of a run. They are the boundary of trust: a run writes only its own scope. It reads its own scope, and scopes
/// that are at least as trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The scope to write, and to read first.
    pub name: String,
    /// The other scopes to read, in this order.
    pub fallbacks: Vec<String>,
}

impl Scope {
    fn new(name: String, fallbacks: &[Option<String>]) -> Self {
        let mut out = Self { name, fallbacks: Vec::new() };
        let mains = MAIN_BRANCHES.iter().map(|main| Some((*main).to_owned()));
        for fallback in fallbacks.iter().cloned().chain(mains).flatten() {
            if fallback != out.name && !out.fallbacks.contains(&fallback) {
                out.fallbacks.push(fallback);
            }
        }
        out
    }

    /// Returns the scope of a branch. A branch whose name looks like another kind of scope gets a prefix. A pull request, a tag
    /// or a pipeline thus never writes a scope that a branch reads, and no two branches share a scope.
    fn of_branch(branch: &str) -> Self {
        let like_a_request = branch.strip_prefix("pr-").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        let like_another = ["tag-", "branch-", "codepipeline-"].iter().any(|prefix| branch.starts_with(prefix))
            || [DEFAULT, LOCAL].contains(&branch);
        Self::new(if like_a_request || like_another { format!("branch-{branch}") } else { branch.to_owned() }, &[])
    }

    /// Returns the scope of a tag. It is never that of a branch: a tag may have the name `main`, and more people may push tags
    /// than push to `main`.
    fn of_tag(tag: &str) -> Self {
        Self::new(format!("tag-{tag}"), &[])
    }

    /// Returns the scope of a pull request, which also reads its target's scope.
    fn of_request(number: &str, target: Option<String>) -> Self {
        let target = target.map(|target| target.strip_prefix("refs/heads/").unwrap_or(&target).to_owned());
        Self::new(format!("pr-{number}"), &[target.map(|target| Self::of_branch(&target).name)])
    }
}

/// The scope of a run if the service names no branch, tag or pull request.
const DEFAULT: &str = "default";

/// The scope on a developer's machine.
const LOCAL: &str = "local";

/// The branches whose scopes every run may read.
const MAIN_BRANCHES: [&str; 2] = ["main", "master"];

impl Ci {
    /// Detects the service from its variables. An empty variable counts as not set.
    #[must_use]
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let is_true = |name: &str| get(name).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1");
        // CodeBuild also hosts runners of GitHub and GitLab. Their variables describe the run.
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
            // In a pull request, TRAVIS_COMMIT is a merge that Travis created, which nobody can look up later.
            Provider::Travis => &["TRAVIS_PULL_REQUEST_SHA", "TRAVIS_COMMIT"],
            Provider::Jenkins => &["GIT_COMMIT"],
            Provider::GitHubActions => &["GITHUB_SHA"],
            // In a pipeline for merged results, CI_COMMIT_SHA is a merge that GitLab created.
            Provider::GitLab => &["CI_MERGE_REQUEST_SOURCE_BRANCH_SHA", "CI_COMMIT_SHA"],
            Provider::Local => &[],
        };
        // For an S3 source, CodeBuild sets the same variable to the object's version, which is no commit.
        let commit = names.iter().filter_map(|name| get(name)).find(|value| is_commit(value));
        let scope = scope(provider, &get);
        // Travis also sets this variable for projects without any secrets.
        let is_request = get("TRAVIS_PULL_REQUEST").is_some_and(|number| number != "false");
        let is_kept_from = get("TRAVIS_SECURE_ENV_VARS").is_some_and(|value| value == "false");
        let has_secrets = provider != Provider::Travis || !is_request || !is_kept_from;
        Self { provider, commit, scope, has_secrets }
    }

    /// Returns the information for reports.
    #[must_use]
    pub fn told(&self) -> CiSettings {
        CiSettings { provider: self.provider.name(), commit: self.commit.clone() }
    }

    /// Returns the service's commit, else the checked out commit in `directory`. Returns `None` if there is neither.
    #[must_use]
    pub fn commit_or_head(&self, directory: &Path) -> Option<String> {
        self.commit.clone().or_else(|| head(directory))
    }
}

/// Returns the cache scopes from the variables of the service.
fn scope(provider: Provider, get: &impl Fn(&str) -> Option<String>) -> Scope {
    let branch = |name: &str| get(name).map(|branch| Scope::of_branch(&branch));
    let tag = |name: &str| get(name).map(|tag| Scope::of_tag(&tag));
    let found = match provider {
        Provider::GitHubActions => {
            let number = get("GITHUB_REF").and_then(|text| Some(text.strip_prefix("refs/pull/")?.split('/').next()?.to_owned()));
            match number {
                Some(number) => Some(Scope::of_request(&number, get("GITHUB_BASE_REF"))),
                None => {
                    let by_ref = get("GITHUB_REF").and_then(|text| Some(Scope::of_tag(text.strip_prefix("refs/tags/")?)));
                    let is_tag = get("GITHUB_REF_TYPE").is_some_and(|kind| kind == "tag");
                    by_ref.or_else(|| if is_tag { tag("GITHUB_REF_NAME") } else { branch("GITHUB_REF_NAME") })
                }
            }
        }
        Provider::GitLab => match get("CI_MERGE_REQUEST_IID") {
            Some(number) => Some(Scope::of_request(&number, get("CI_MERGE_REQUEST_TARGET_BRANCH_NAME"))),
            None => tag("CI_COMMIT_TAG").or_else(|| branch("CI_COMMIT_REF_NAME")),
        },
        // In a pull request, TRAVIS_BRANCH is the target branch. For a tag, it is the tag.
        Provider::Travis => match get("TRAVIS_PULL_REQUEST").filter(|number| number != "false") {
            Some(number) => Some(Scope::of_request(&number, get("TRAVIS_BRANCH"))),
            None => tag("TRAVIS_TAG").or_else(|| branch("TRAVIS_BRANCH")),
        },
        Provider::CodeBuild => code_build(get),
        Provider::Jenkins => match get("CHANGE_ID") {
            Some(number) => Some(Scope::of_request(&number, get("CHANGE_TARGET"))),
            // For a tag, BRANCH_NAME is the tag.
            None => tag("TAG_NAME").or_else(|| branch("BRANCH_NAME")).or_else(|| {
                let text = get("GIT_BRANCH")?;
                let tag = ["refs/tags/", "origin/tags/", "tags/"].iter().find_map(|prefix| text.strip_prefix(prefix));
                let branch = ["refs/heads/", "origin/"].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(&text);
                Some(tag.map_or_else(|| Scope::of_branch(branch), Scope::of_tag))
            }),
        },
        Provider::Local => None,
    };
    found.unwrap_or_else(|| Scope::new(if provider == Provider::Local { LOCAL } else { DEFAULT }.to_owned(), &[]))
}

/// Returns the scopes under CodeBuild. A build of CodePipeline has no webhook, and no variable names its branch.
fn code_build(get: &impl Fn(&str) -> Option<String>) -> Option<Scope> {
    if let Some(pipeline) = get("CODEBUILD_INITIATOR").and_then(|by| Some(by.strip_prefix("codepipeline/")?.to_owned())) {
        return Some(Scope::new(format!("codepipeline-{pipeline}"), &[]));
    }
    let trigger = get("CODEBUILD_WEBHOOK_TRIGGER")?;
    match trigger.split_once('/')? {
        ("pr", number) => Some(Scope::of_request(number, get("CODEBUILD_WEBHOOK_BASE_REF"))),
        ("branch", name) => Some(Scope::of_branch(name)),
        ("tag", name) => Some(Scope::of_tag(name)),
        _ => None,
    }
}

/// Returns the commit that git has checked out in a directory. Returns `None` without git or without a commit.
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

/// Returns whether a text is a SHA-1 or SHA-256 in hexadecimal.
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
            (
                &[("GITLAB_CI", "true"), ("CI_COMMIT_SHA", A), ("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA", B)],
                Provider::GitLab,
                Some(B),
            ),
            (&[("GIT_COMMIT", A)], Provider::Local, None),
            (&[("CODEBUILD_BUILD_ID", "")], Provider::Local, None),
        ] {
            let ci = detect(variables);
            assert_eq!((ci.provider, ci.commit.as_deref()), (provider, commit), "{variables:?}");
        }
    }

    #[test]
    fn each_run_has_a_scope_and_a_pull_request_never_a_branchs() {
        let github = ("GITHUB_ACTIONS", "true");
        for (variables, scope, first) in [
            (&[("CODEBUILD_BUILD_ID", "x:1"), ("CODEBUILD_WEBHOOK_TRIGGER", "branch/feature/a")][..], "feature/a", "main"),
            (
                &[
                    ("CODEBUILD_BUILD_ID", "x:1"),
                    ("CODEBUILD_WEBHOOK_TRIGGER", "pr/7"),
                    ("CODEBUILD_WEBHOOK_BASE_REF", "refs/heads/dev"),
                ],
                "pr-7",
                "dev",
            ),
            (&[("CODEBUILD_BUILD_ID", "x:1"), ("CODEBUILD_INITIATOR", "codepipeline/deploy")], "codepipeline-deploy", "main"),
            (&[("CODEBUILD_BUILD_ID", "x:1"), ("CODEBUILD_INITIATOR", "someone")], "default", "main"),
            (&[("TRAVIS", "true"), ("TRAVIS_PULL_REQUEST", "12"), ("TRAVIS_BRANCH", "main")], "pr-12", "main"),
            (&[("TRAVIS", "true"), ("TRAVIS_PULL_REQUEST", "false"), ("TRAVIS_BRANCH", "main")], "main", "master"),
            (
                &[github, ("GITHUB_REF", "refs/pull/3/merge"), ("GITHUB_REF_NAME", "3/merge"), ("GITHUB_BASE_REF", "dev")],
                "pr-3",
                "dev",
            ),
            (&[github, ("GITHUB_REF", "refs/heads/main"), ("GITHUB_REF_NAME", "main")], "main", "master"),
            (&[github, ("GITHUB_REF", "refs/heads/pr-3"), ("GITHUB_REF_NAME", "pr-3")], "branch-pr-3", "main"),
            (&[("JENKINS_URL", "http://j/"), ("CHANGE_ID", "5"), ("CHANGE_TARGET", "dev")], "pr-5", "dev"),
            (&[("JENKINS_URL", "http://j/"), ("GIT_BRANCH", "origin/dev")], "dev", "main"),
            (&[("GITLAB_CI", "true"), ("CI_COMMIT_REF_NAME", "dev")], "dev", "main"),
            (
                &[
                    ("GITLAB_CI", "true"),
                    ("CI_COMMIT_REF_NAME", "refs/merge-requests/7/head"),
                    ("CI_MERGE_REQUEST_IID", "7"),
                    ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "dev"),
                ],
                "pr-7",
                "dev",
            ),
            // A tag with the name of a branch, and a branch with the name of a tag's scope.
            (
                &[github, ("GITHUB_REF", "refs/tags/main"), ("GITHUB_REF_TYPE", "tag"), ("GITHUB_REF_NAME", "main")],
                "tag-main",
                "main",
            ),
            (&[github, ("GITHUB_REF_TYPE", "tag"), ("GITHUB_REF_NAME", "main")], "tag-main", "main"),
            (&[github, ("GITHUB_REF", "refs/heads/tag-main"), ("GITHUB_REF_NAME", "tag-main")], "branch-tag-main", "main"),
            (
                &[github, ("GITHUB_REF", "refs/heads/branch-pr-3"), ("GITHUB_REF_NAME", "branch-pr-3")],
                "branch-branch-pr-3",
                "main",
            ),
            (&[("CODEBUILD_BUILD_ID", "x:1"), ("CODEBUILD_WEBHOOK_TRIGGER", "tag/main")], "tag-main", "main"),
            (&[("CODEBUILD_BUILD_ID", "x:1"), ("CODEBUILD_WEBHOOK_TRIGGER", "branch/default")], "branch-default", "main"),
            (&[("CODEBUILD_BUILD_ID", "x:1"), ("CODEBUILD_WEBHOOK_TRIGGER", "other/main")], "default", "main"),
            (
                &[("TRAVIS", "true"), ("TRAVIS_PULL_REQUEST", "false"), ("TRAVIS_BRANCH", "main"), ("TRAVIS_TAG", "main")],
                "tag-main",
                "main",
            ),
            (&[("GITLAB_CI", "true"), ("CI_COMMIT_REF_NAME", "main"), ("CI_COMMIT_TAG", "main")], "tag-main", "main"),
            (&[("JENKINS_URL", "http://j/"), ("BRANCH_NAME", "main"), ("TAG_NAME", "main")], "tag-main", "main"),
            (&[("JENKINS_URL", "http://j/"), ("GIT_BRANCH", "refs/tags/main")], "tag-main", "main"),
            (&[], "local", "main"),
        ] {
            let found = detect(variables).scope;
            assert_eq!((&*found.name, &*found.fallbacks[0]), (scope, first), "{variables:?}");
        }
    }

    #[test]
    fn a_fork_has_no_secrets() {
        let travis = |request, secure| {
            detect(&[("TRAVIS", "true"), ("TRAVIS_PULL_REQUEST", request), ("TRAVIS_SECURE_ENV_VARS", secure)]).has_secrets
        };
        assert!(!travis("7", "false"));
        assert!(travis("7", "true") && travis("false", "false"), "a project without secrets pushes what it can");
        assert!(detect(&[("TRAVIS_SECURE_ENV_VARS", "false")]).has_secrets, "not on Travis");
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
