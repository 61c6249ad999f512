//! Remote files and repositories: what must be looked up before a build, and how a known version contributes to keys (BuildKit
//! `source/http` and `source/git`, `client/llb/source.go`).

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;

use super::decode::Op;
use super::wire::{Change, Malformed, rewritten};
use crate::domain::Digest;

/// A remote source that may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// A file of a server.
    File {
        /// The file's URL.
        url: String,
    },
    /// A branch or a tag of a repository.
    Repository {
        /// The repository's URL.
        url: String,
        /// The branch or tag; empty for the repository's default branch.
        reference: String,
        /// The required start of the commit; empty if the Dockerfile sets none.
        checksum: String,
        /// Secrets for the daemon's sign-in, if the build has them.
        secrets: Vec<String>,
    },
}

/// The present version of a remote source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolvedSource {
    /// A file.
    File {
        /// The digest of its bytes.
        content: Digest,
        /// The server's `Last-Modified`; empty if it sent none.
        modified: String,
    },
    /// A commit.
    Commit(String),
}

/// Field numbers (`solver/pb/ops.proto`).
mod number {
    pub(super) const OP_SOURCE: u64 = 3;
    pub(super) const SOURCE_IDENTIFIER: u64 = 1;
}

const CHECKSUM: &str = "http.checksum";
const COMMIT_CHECKSUM: &str = "git.checksum";

impl Remote {
    /// Returns what to look up for a source. Returns `None` for other sources, and for sources that name an exact version. The
    /// inner error says why hakobi cannot look it up like the daemon.
    #[must_use]
    pub fn from_op(op: &Op) -> Option<Result<Self, String>> {
        let Some(pb::op::Op::Source(source)) = &op.op.op else { return None };
        let (scheme, rest) = source.identifier.split_once("://")?;
        match scheme {
            "http" | "https" if !source.attrs.contains_key(CHECKSUM) => Some(file(source)),
            "git" if !names_a_commit(source) => Some(repository(source, rest)),
            _ => None,
        }
    }
}

fn file(source: &pb::SourceOp) -> Result<Remote, String> {
    let url = &source.identifier;
    without_credentials(url)?;
    known(source, &["http.filename", "http.perm", "http.uid", "http.gid"])?;
    if !source.attrs.contains_key("http.filename") {
        return Err(format!("only its server determines the file name of {}", without_query(url)));
    }
    Ok(Remote::File { url: url.clone() })
}

fn repository(source: &pb::SourceOp, rest: &str) -> Result<Remote, String> {
    const SECRETS: [&str; 2] = ["git.authtokensecret", "git.authheadersecret"];
    let (place, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let url = source.attrs.get("git.fullurl").cloned().unwrap_or_else(|| format!("https://{place}"));
    let (url, _) = url.split_once('#').unwrap_or((&url, ""));
    if !["https://", "http://", "git://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(format!("{url} requires an SSH agent, so the daemon must fetch it"));
    }
    without_credentials(url)?;
    if source.attrs.get("git.keepgitdir").is_some_and(|keep| keep == "true") {
        return Err(format!("{url} is fetched with its .git directory, whose content a commit does not determine"));
    }
    known(source, &["git.fullurl", "git.skipsubmodules", COMMIT_CHECKSUM, SECRETS[0], SECRETS[1]])?;
    let reference = fragment.split(':').next().unwrap_or_default().to_owned();
    let checksum = source.attrs.get(COMMIT_CHECKSUM).cloned().unwrap_or_default();
    let secrets = SECRETS.iter().filter_map(|name| source.attrs.get(*name).cloned()).collect();
    Ok(Remote::Repository { url: url.to_owned(), reference, checksum, secrets })
}

/// Checks that hakobi knows all attributes of a source, because the effect of others is unknown.
fn known(source: &pb::SourceOp, names: &[&str]) -> Result<(), String> {
    match source.attrs.keys().find(|name| !names.contains(&&***name)) {
        Some(other) => Err(format!("hakobi does not support {other}")),
        None => Ok(()),
    }
}

fn without_credentials(url: &str) -> Result<(), String> {
    let authority = url.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((_, host)) => Err(format!("{host} requires credentials, so the daemon must fetch it")),
        None => Ok(()),
    }
}

/// Returns whether the fragment is a whole commit: `git://host/path#COMMIT`, possibly followed by `:subdirectory`. A checksum of
/// another commit contradicts it.
pub(super) fn names_a_commit(source: &pb::SourceOp) -> bool {
    let fragment = source.identifier.split_once('#').map(|(_, fragment)| fragment).unwrap_or_default();
    let named = fragment.split(':').next().unwrap_or_default();
    is_commit(named) && source.attrs.get(COMMIT_CHECKSUM).is_none_or(|checksum| named.starts_with(&**checksum))
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns a URL that may be shown: its query may contain a signature.
#[must_use]
pub fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

/// Returns a source's identifier and attributes that pin it to this version. Returns `None` if the step is no source.
#[must_use]
pub fn pinned(op: &Op, holds: &ResolvedSource) -> Option<(String, BTreeMap<String, String>)> {
    let Some(pb::op::Op::Source(source)) = &op.op.op else { return None };
    let mut attributes = source.attrs.clone();
    match holds {
        ResolvedSource::File { content, .. } => {
            attributes.insert(CHECKSUM.to_owned(), content.to_string());
            Some((source.identifier.clone(), attributes))
        }
        ResolvedSource::Commit(commit) => Some((at_commit(&source.identifier, commit), attributes)),
    }
}

/// Returns `git://host/path#main:sub` with a commit instead of the branch.
fn at_commit(identifier: &str, commit: &str) -> String {
    let (place, fragment) = identifier.split_once('#').unwrap_or((identifier, ""));
    match fragment.split_once(':') {
        Some((_, folder)) => format!("{place}#{commit}:{folder}"),
        None => format!("{place}#{commit}"),
    }
}

/// Returns the source's bytes for its key, without the parts of its identifier that the key contains otherwise. BuildKit does not
/// care where a file comes from, but only about its name and content.
pub(super) fn canonical(op: &Op, bytes: &[u8], holds: &ResolvedSource) -> Result<Vec<u8>, Malformed> {
    let Some(pb::op::Op::Source(source)) = &op.op.op else { return Err(Malformed) };
    rewritten(bytes, |field| match field.number {
        number::OP_SOURCE => Ok(Change::To(rewritten(field.inside.ok_or(Malformed)?, |field| {
            Ok(match (field.number, holds) {
                (number::SOURCE_IDENTIFIER, ResolvedSource::File { .. }) => Change::Drop,
                (number::SOURCE_IDENTIFIER, ResolvedSource::Commit(commit)) => {
                    Change::To(at_commit(&source.identifier, commit).into_bytes())
                }
                _ => Change::Keep,
            })
        })?)),
        _ => Ok(Change::Keep),
    })
}

/// Returns the commit or checksum that pins a source, or `None`. If the Dockerfile does not contain it, the frontend has resolved
/// it.
#[must_use]
pub fn pinned_revision(op: &Op) -> Option<&str> {
    let Some(pb::op::Op::Source(source)) = &op.op.op else { return None };
    match source.identifier.split("://").next()? {
        "http" | "https" => source.attrs.get(CHECKSUM).map(String::as_str),
        "git" if names_a_commit(source) => source.identifier.split_once('#')?.1.split(':').next(),
        "git" => source.attrs.get(COMMIT_CHECKSUM).map(String::as_str),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Made;
    use super::*;
    use crate::graph::{Graph, Input};

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn source(identifier: &str, attributes: &[(&str, &str)]) -> (Graph, Input) {
        let mut made = Made::default();
        let source = made.source_with(identifier, attributes);
        (made.graph(&source), source)
    }

    fn asked(identifier: &str, attributes: &[(&str, &str)]) -> Option<Result<Remote, String>> {
        let (graph, source) = source(identifier, attributes);
        Remote::from_op(graph.op(&source.step).unwrap())
    }

    #[test]
    fn what_may_change_is_asked() {
        let name = ("http.filename", "a.txt");
        let file = |url: &str| Some(Ok(Remote::File { url: url.to_owned() }));
        assert_eq!(asked("https://host/a.txt?b=c", &[name, ("http.uid", "1")]), file("https://host/a.txt?b=c"));
        assert_eq!(asked("http://host/a@b", &[name]), file("http://host/a@b"), "that is no credential");
        assert_eq!(asked("https://host/a.txt", &[name, ("http.checksum", "sha256:00")]), None);
        assert_eq!(asked("docker-image://host/a", &[]), None);
        let repository = |url: &str, reference: &str, secrets: &[&str]| {
            let secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
            let (url, reference) = (url.to_owned(), reference.to_owned());
            Some(Ok(Remote::Repository { url, reference, checksum: String::new(), secrets }))
        };
        assert_eq!(asked("git://host/r.git#main:sub", &[]), repository("https://host/r.git", "main", &[]));
        let full = ("git.fullurl", "git://host:1/r.git");
        let (token, header) = (("git.authtokensecret", "GIT_AUTH_TOKEN"), ("git.authheadersecret", "GIT_AUTH_HEADER"));
        assert_eq!(asked("git://host:1/r.git", &[full, token, header]), {
            repository("git://host:1/r.git", "", &["GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"])
        });
        let at_commit = format!("git://host/r.git#{COMMIT}:sub");
        assert_eq!(asked(&at_commit, &[]), None);
        assert_eq!(asked(&at_commit, &[("git.checksum", &COMMIT[..8])]), None);
        for (identifier, reference, checksum) in [("git://host/r.git#v1", "v1", COMMIT), (&*at_commit, COMMIT, "ff")] {
            assert_eq!(asked(identifier, &[("git.checksum", checksum)]), {
                let (url, checksum) = ("https://host/r.git".to_owned(), checksum.to_owned());
                Some(Ok(Remote::Repository { url, reference: reference.to_owned(), checksum, secrets: Vec::new() }))
            });
        }
    }

    #[test]
    fn what_only_the_daemon_can_ask_says_why() {
        let why = |identifier: &str, attributes: &[(&str, &str)]| asked(identifier, attributes).unwrap().unwrap_err();
        let name = ("http.filename", "a");
        assert_eq!(why("https://user:secret@host/a", &[name]), "host requires credentials, so the daemon must fetch it");
        assert_eq!(why("https://host/a", &[name, ("http.header.accept", "x")]), "hakobi does not support http.header.accept");
        assert!(why("https://host/", &[]).contains("only its server"));
        let ssh = ("git.fullurl", "git@github.com:a/b.git");
        assert!(why("git://github.com/a/b.git", &[ssh]).contains("SSH agent"));
        let secret = ("git.fullurl", "https://x:secret@host/b.git");
        assert!(!why("git://host/b.git", &[secret]).contains("secret"));
        assert!(why("git://host/b.git", &[("git.keepgitdir", "true")]).contains(".git directory"));
        assert_eq!(why("git://host/b.git", &[("git.new", "x")]), "hakobi does not support git.new");
    }

    #[test]
    fn what_was_found_is_what_is_brought() {
        let (graph, step) = source("git://host/r.git#main:sub", &[("git.fullurl", "https://host/r.git")]);
        let holds = ResolvedSource::Commit(COMMIT.to_owned());
        let op = graph.op(&step.step).unwrap();
        let (identifier, attributes) = pinned(op, &holds).unwrap();
        assert_eq!(identifier, format!("git://host/r.git#{COMMIT}:sub"));
        assert_eq!(attributes["git.fullurl"], "https://host/r.git");
        // The same as if the source had named the commit.
        let (named, at) = source(&identifier, &[("git.fullurl", "https://host/r.git")]);
        assert_eq!(canonical(op, graph.bytes(&step.step).unwrap(), &holds).as_deref(), Ok(named.bytes(&at.step).unwrap()));
        assert_eq!(pinned_revision(named.op(&at.step).unwrap()), Some(COMMIT));
        assert_eq!(at_commit("git://host/r", COMMIT), format!("git://host/r#{COMMIT}"));

        let (graph, step) = source("https://host/a", &[("http.filename", "a")]);
        let content = Digest::hash(b"a");
        let holds = ResolvedSource::File { content: content.clone(), modified: String::new() };
        let (identifier, attributes) = pinned(graph.op(&step.step).unwrap(), &holds).unwrap();
        assert_eq!(identifier, "https://host/a");
        assert_eq!(attributes["http.checksum"], content.to_string());
    }
}
