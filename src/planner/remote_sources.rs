//! Looks up remote files and repositories before a plan. The daemon then fetches exactly these versions.

use std::collections::HashMap;

use futures::future::join_all;

use crate::cache::record_reader::RecordReader;
use crate::domain::Digest;
use crate::graph::{Op, Remote, ResolvedSource, without_query};
use crate::plan::{KnownFacts, RecordKey, RemoteRecord, remote_key};
use crate::remote::{self, Client, Found, Version};
use crate::run::context::BuildContext;

/// The result of a source's look-up: the step, its version, and a new record.
pub type Asked = (Digest, Result<ResolvedSource, String>, Option<NewRecord>);

/// A new record of a server's file.
pub type NewRecord = (RecordKey<RemoteRecord>, RemoteRecord);

/// Looks up all remote sources among these steps.
///
/// # Errors
/// If the cache fails and is required.
pub async fn ask(
    context: &BuildContext<'_>,
    sources: &[&Op],
    records: &RecordReader<'_>,
    known: &KnownFacts,
) -> crate::error::Result<Vec<Asked>> {
    let new = sources.iter().filter(|op| !known.remotes.contains_key(&op.digest));
    let new: Vec<_> = new.filter_map(|op| Some((op.digest.clone(), Remote::from_op(op)?))).collect();
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let urls = new.iter().filter_map(|(_, remote)| match remote {
        Ok(Remote::File { url }) => Some(url.clone()),
        _ => None,
    });
    // With `--no-cache`, hakobi trusts no record.
    let remembered = match context.build.frontend_options.get("no-cache") {
        Some(stages) if stages.is_empty() => HashMap::new(),
        _ => records.read(urls, |url| remote_key(url)).await?,
    };
    let (client, remembered) = (&Client::new(), &remembered);
    let one = async |(digest, remote): (Digest, Result<Remote, String>)| {
        let (holds, record) = match remote {
            Err(why) => (Err(why), None),
            Ok(Remote::File { url }) => match file(client, &url, remembered).await {
                Ok((holds, record)) => (Ok(holds), record),
                Err(why) => (Err(format!("{}: {why}", without_query(&url))), None),
            },
            Ok(Remote::Repository { url, secrets, .. }) if gives(context, &secrets) => {
                (Err(format!("{url} requires a secret, so the daemon must fetch it")), None)
            }
            Ok(Remote::Repository { url, reference, checksum, .. }) => {
                let commit = remote::commit(&url, &reference).await;
                // The daemon refuses another commit, unless it already has this one.
                let commit = commit.and_then(|commit| match commit.starts_with(&checksum) {
                    true => Ok(ResolvedSource::Commit(commit)),
                    false => Err(format!("its commit is {commit}, not {checksum}")),
                });
                (commit.map_err(|why| format!("{url}: {why}")), None)
            }
        };
        (digest, holds, record)
    };
    Ok(join_all(new.into_iter().map(one)).await)
}

/// Returns whether the build has one of these secrets. A secret for a host has the name `NAME.HOST`.
pub fn gives(context: &BuildContext<'_>, names: &[String]) -> bool {
    let is_of = |id: &str, name: &str| id.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    context.build.secrets.iter().any(|secret| names.iter().any(|name| is_of(&secret.id, name)))
}

/// Looks up the present version of a file. Returns also the record to write, if hakobi read the file.
///
/// # Errors
/// A text that says why the version is not known.
pub async fn file(
    client: &Result<Client, String>,
    url: &str,
    remembered: &HashMap<String, RemoteRecord>,
) -> Result<(ResolvedSource, Option<NewRecord>), String> {
    let client = client.as_ref().map_err(Clone::clone)?;
    let known = remembered.get(url).cloned();
    let known = known.map(|RemoteRecord { etag, modified, content }| Version { etag, modified, content });
    let Found { version, was_read } = client.file(url, known.as_ref()).await?;
    let Version { etag, modified, content } = version;
    let holds = ResolvedSource::File { content: content.clone(), modified: modified.clone() };
    let record = (was_read && !etag.is_empty()).then_some((remote_key(url), RemoteRecord { etag, modified, content }));
    Ok((holds, record))
}
