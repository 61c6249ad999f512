//! `--call` and `--check`: requests to the frontend that build nothing.

use std::collections::HashMap;

use crate::build::check_failure;
use crate::engine::buildkit::{Session, SolveRequest};
use crate::error::{Error, Result};
use crate::run::daemon::DaemonBuild;

/// The frontend's answer.
pub struct Answer {
    pub text: String,
    pub exit_code: u8,
}

pub async fn call(run: &DaemonBuild<'_>, session: &Session, mut options: HashMap<String, String>) -> Result<Answer> {
    let build = run.context.build;
    // buildx calls the frontend's `lint` request `check`.
    let name = if build.call == "check" { "lint" } else { &build.call };
    options.insert("requestid".to_owned(), format!("frontend.{name}"));
    let caps = options.entry("frontend.caps".to_owned()).or_default();
    if !caps.is_empty() {
        caps.push(',');
    }
    caps.push_str("moby.buildkit.frontend.subrequests+forward");
    let mut metadata = None;
    let slot = &mut metadata;
    let asked = run
        .buildkit
        .build(session, SolveRequest::default(), run.context.events, |mut gateway| async move {
            let mut solved = gateway.dockerfile(options).await?;
            *slot = Some(std::mem::take(&mut solved.metadata));
            Ok(solved)
        })
        .await;
    if let Err(status) = asked {
        return Err(run.failure(&status, session, None).await);
    }
    let metadata = metadata.unwrap_or_default();
    let text = |key: &str| metadata.get(key).map(|value| String::from_utf8_lossy(value).into_owned());
    let json = build.call_format.as_deref() == Some("json");
    // The text of a check contains only warnings. The JSON says why the frontend cannot parse the Dockerfile.
    let broken = text("result.json").filter(|_| name == "lint" && !json).and_then(|json| check_failure(&json));
    if let Some(broken) = broken {
        let warnings = text("result.txt").filter(|text| !text.trim().is_empty()).map(|text| format!("{}\n", text.trim_end()));
        return Err(warnings.into_iter().fold(Error::build(broken), Error::answer));
    }
    let Some(answer) = (if json { text("result.json") } else { text("result.txt") }) else {
        return Err(Error::usage(format!("this Docker daemon's Dockerfile frontend does not support --call {}", build.call))
            .hint("add a first line `# syntax=docker/dockerfile:1` to use a newer frontend"));
    };
    let found = text("result.statuscode").is_some_and(|code| code.trim() != "0");
    let answer = match (name, json, found) {
        ("lint", false, false) if answer.trim().is_empty() => "Check complete, no warnings found.\n".to_owned(),
        _ if answer.ends_with('\n') => answer,
        _ => format!("{answer}\n"),
    };
    Ok(Answer { text: answer, exit_code: u8::from(found && !build.call_ignore_status) })
}
