//! Finds the commit of a branch or a tag with the program `git`, run like BuildKit runs it (BuildKit `source/git`, `util/gitutil`).

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// The time after which hakobi stops waiting for a server.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the commit of a branch or tag. Without a reference, returns that of the repository's default branch.
///
/// # Errors
/// If the commit cannot be determined. The text is the reason.
pub async fn commit(url: &str, reference: &str) -> Result<String, String> {
    let mut command = Command::new("git");
    command.args(["-c", "protocol.file.allow=never", "ls-remote", "--", url]);
    match reference {
        "" => command.arg("HEAD"),
        reference => command.args([reference, &format!("{reference}^{{}}")]),
    };
    // No user is present to enter a password. The daemon does not have this user's git configuration, so git must not use it.
    command.envs([("GIT_TERMINAL_PROMPT", "0"), ("GIT_CONFIG_NOSYSTEM", "1"), ("HOME", "/dev/null"), ("LC_ALL", "C")]);
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_ASKPASS", "SSH_ASKPASS", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL"] {
        command.env_remove(name);
    }
    command.current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
    let ended = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => return Err("git is not installed".to_owned()),
        Ok(Err(error)) => return Err(format!("failed to run git: {error}")),
        Err(_) => return Err("its server did not answer in time".to_owned()),
    };
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        let last = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("nothing");
        return Err(format!("git says: {last}"));
    }
    chosen(&String::from_utf8_lossy(&ended.stdout), reference)
}

/// Returns the commit that BuildKit would choose from the listed references: the full name after `refs/`, then a branch, then a
/// tag. For an annotated tag it is the tagged commit. Returns an error if a name is both a branch and a tag, because BuildKit's
/// versions differ there.
pub(super) fn chosen(listed: &str, reference: &str) -> Result<String, String> {
    if reference.is_empty() {
        let head = listed.lines().find_map(|line| line.strip_suffix("\tHEAD"));
        return head.filter(|commit| is_commit(commit)).map(ToOwned::to_owned).ok_or_else(|| "it has no branch".to_owned());
    }
    let whole = format!("refs/{}", reference.trim_start_matches("refs/"));
    let branch = format!("refs/heads/{}", reference.trim_start_matches("refs/heads/"));
    let tag = format!("refs/tags/{}", reference.trim_start_matches("refs/tags/"));
    let at = |name: &str| {
        listed.lines().filter_map(|line| line.split_once('\t')).find(|(_, listed)| *listed == name).map(|(commit, _)| commit)
    };
    let peeled = |name: &str| at(&format!("{name}^{{}}")).or_else(|| at(name));
    let mut found: Vec<&str> = [peeled(&whole), peeled(&branch), peeled(&tag)].into_iter().flatten().collect();
    found.dedup();
    match found[..] {
        [commit] if is_commit(commit) => Ok(commit.to_owned()),
        [] => Err(format!("it has no branch and no tag {reference}")),
        [other] => Err(format!("git lists `{other}` for {reference}, which is no commit")),
        _ => Err(format!("{reference} is a branch and a tag")),
    }
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_buildkit_takes_it_for() {
        let commit = |digit: char| digit.to_string().repeat(40);
        let (a, b, c) = (commit('a'), commit('b'), commit('c'));
        let listed = format!(
            "{c}\trefs/heads/feature/main\n{a}\trefs/heads/main\n{b}\trefs/heads/both\n{c}\trefs/tags/both\n{b}\trefs/tags/v1\n\
             {c}\trefs/tags/v1^{{}}\n{b}\trefs/pull/5/head\n"
        );
        let of = |reference: &str| chosen(&listed, reference);
        assert_eq!(of("main"), Ok(a.clone()));
        assert_eq!(of("heads/main"), Ok(a.clone()));
        assert_eq!(of("refs/heads/main"), Ok(a.clone()));
        assert_eq!(of("feature/main"), Ok(c.clone()));
        assert_eq!(of("v1"), Ok(c.clone()));
        assert_eq!(of("refs/tags/v1"), Ok(c.clone()));
        assert_eq!(of("refs/pull/5/head"), Ok(b.clone()));
        assert_eq!(of("pull/5/head"), Ok(b));
        assert_eq!(of("both"), Err("both is a branch and a tag".to_owned()));
        assert_eq!(of("aaaaaaa"), Err("it has no branch and no tag aaaaaaa".to_owned()));
        assert_eq!(chosen(&format!("{a}\tHEAD\n"), ""), Ok(a));
        assert_eq!(chosen("", ""), Err("it has no branch".to_owned()));
        assert!(chosen("x\trefs/heads/main\n", "main").is_err());
    }
}
