//! Determines the owner of an operation's files (`ops/user_linux.go`: `readUser`).

use bollard_buildkit_proto::pb;

use super::doubt::{AssemblyDoubt, unsure};
use super::state::{Owner, Seen, State};

/// Approximately the longest line of `/etc/passwd` that Go's scanner accepts.
const LONGEST: usize = 60_000;

/// Returns the owner that an action requests, or `None` if it requests none. It looks up names in the state that the action works
/// on, which is the input of this number.
pub(super) fn resolve(state: &State<'_>, asked: Option<&pb::ChownOpt>, input: i64) -> Result<Option<Owner>, AssemblyDoubt> {
    let Some(asked) = asked else { return Ok(None) };
    let mut owner = (0, 0);
    match asked.user.as_ref().and_then(|user| user.user.as_ref()) {
        Some(pb::user_opt::User::ById(id)) => owner = (*id, *id),
        Some(pb::user_opt::User::ByName(named)) => {
            if let Some(fields) = line(state, "/etc/passwd", named, input)? {
                owner = (id(&fields, 2, &named.name)?, id(&fields, 3, &named.name)?);
            }
        }
        None => {}
    }
    match asked.group.as_ref().and_then(|group| group.user.as_ref()) {
        Some(pb::user_opt::User::ById(id)) => owner.1 = *id,
        Some(pb::user_opt::User::ByName(named)) => {
            if let Some(fields) = line(state, "/etc/group", named, input)? {
                owner.1 = id(&fields, 2, &named.name)?;
            }
        }
        None => {}
    }
    Ok(Some(owner))
}

/// Returns the fields of a name's first line, or `None` if the file has no such name: that is no error.
fn line(state: &State<'_>, path: &str, named: &pb::NamedUserOpt, input: i64) -> Result<Option<Vec<String>>, AssemblyDoubt> {
    if named.input != input || input < 0 {
        return unsure(format!("the name {} is resolved in another image", named.name));
    }
    let at = state.resolved(path)?;
    if state.seen(&at)? != Seen::File {
        // This is an error in older versions.
        return unsure(format!("the file {path}, needed to resolve {}, does not exist", named.name));
    }
    let Some(text) = state.text(&at) else { return unsure(format!("hakobi does not know the content of {path}")) };
    for line in text.split('\n') {
        if line.len() > LONGEST {
            return unsure(format!("{path} has overlong lines"));
        }
        let line = line.trim();
        let fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        if line.starts_with('#') || fields.first() != Some(&named.name) || line.is_empty() {
            continue;
        }
        return Ok(Some(fields));
    }
    Ok(None)
}

/// Returns a field as a number. hakobi does not imitate what Go does with other texts.
fn id(fields: &[String], field: usize, name: &str) -> Result<u32, AssemblyDoubt> {
    let text = fields.get(field).map_or("", String::as_str);
    match text.parse() {
        Ok(id) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(id),
        _ => unsure(format!("the line of {name} has no numeric ID")),
    }
}
