//! `--call` and `--check`: questions to the frontend that build nothing.

use std::collections::HashMap;

use crate::build::failure;
use crate::engine::buildkit::{BuildKit, Session, SolveRequest};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::settings::BuildSettings;

/// What a check says in JSON of a Dockerfile that cannot be read.
#[derive(serde::Deserialize)]
struct Checked {
    #[serde(rename = "buildError")]
    broken: Option<Broken>,
}

#[derive(serde::Deserialize)]
struct Broken {
    message: String,
}

/// The frontend's answer.
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) exit_code: u8,
}

pub(super) async fn call(
    buildkit: &BuildKit,
    session: &Session,
    build: &BuildSettings,
    mut options: HashMap<String, String>,
    events: &Events,
) -> Result<Answer> {
    // buildx's word for the frontend's `lint`.
    let name = if build.call == "check" { "lint" } else { &build.call };
    options.insert("requestid".to_owned(), format!("frontend.{name}"));
    let caps = options.entry("frontend.caps".to_owned()).or_default();
    if !caps.is_empty() {
        caps.push(',');
    }
    caps.push_str("moby.buildkit.frontend.subrequests+forward");
    let mut metadata = None;
    let slot = &mut metadata;
    buildkit
        .build(session, SolveRequest::default(), events, |mut gateway| async move {
            let mut solved = gateway.dockerfile(options).await?;
            *slot = Some(std::mem::take(&mut solved.metadata));
            Ok(solved)
        })
        .await
        .map_err(|status| failure(&status, session.local_failure(), None))?;
    let metadata = metadata.unwrap_or_default();
    let text = |key: &str| metadata.get(key).map(|value| String::from_utf8_lossy(value).into_owned());
    let json = build.call_format.as_deref() == Some("json");
    // The text of a check has its warnings alone; what keeps the Dockerfile from being read is in the other form.
    let broken = text("result.json").and_then(|json| serde_json::from_str::<Checked>(&json).ok()?.broken);
    if let (Some(broken), "lint", false) = (broken, name, json) {
        return Err(Error::build(broken.message));
    }
    let Some(answer) = (if json { text("result.json") } else { text("result.txt") }) else {
        return Err(Error::usage(format!("this Docker daemon's Dockerfile frontend does not know --call {}", build.call))
            .hint("a `# syntax=docker/dockerfile:1` line brings one that does"));
    };
    let found = text("result.statuscode").is_some_and(|code| code.trim() != "0");
    let answer = match (name, json, found) {
        ("lint", false, false) if answer.trim().is_empty() => "Check complete, no warnings found.\n".to_owned(),
        _ if answer.ends_with('\n') => answer,
        _ => format!("{answer}\n"),
    };
    Ok(Answer { text: answer, exit_code: u8::from(found && !build.call_ignore_status) })
}
