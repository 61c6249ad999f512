//! Parses `--secret` and `--ssh` (buildx `buildflags`, BuildKit `secretsprovider` and `sshprovider`), without reading any secret.

use std::path::PathBuf;

use super::environment::Environment;
use super::words;
use crate::error::{Error, Result};
use crate::settings::{Secret, SecretSource, SshSource};

/// The largest secret that BuildKit accepts, in bytes (`secretsprovider.MaxSecretSize`).
const MAX_SECRET_SIZE: u64 = 500 * 1024;

/// Parses the values of `--secret`. The last value with an ID overrides the others.
pub fn secrets(texts: &[String], environment: &Environment, warnings: &mut Vec<String>) -> Result<Vec<Secret>> {
    let mut out: Vec<Secret> = Vec::new();
    for text in texts {
        let secret = secret(text, environment)?;
        if let SecretSource::Env(name) = &secret.source
            && environment.get_raw(name).is_none()
        {
            warnings.push(format!("the secret `{}` is empty: the environment variable {name} is not set", secret.id));
        }
        match out.iter_mut().find(|other| other.id == secret.id) {
            Some(other) => *other = secret,
            None => out.push(secret),
        }
    }
    Ok(out)
}

fn secret(text: &str, environment: &Environment) -> Result<Secret> {
    let wrong = |what: String| {
        Error::usage(format!("invalid --secret {text}: {what}")).hint("use id=NAME,src=FILE or id=NAME,env=VARIABLE")
    };
    let (mut id, mut file, mut variable, mut from_variable) = (String::new(), String::new(), String::new(), false);
    for (key, value) in words::pairs("secret", text)? {
        match (key.as_str(), value.as_str()) {
            ("id", _) => id = value,
            ("src" | "source", _) => file = value,
            ("env", _) => variable = value,
            ("type", "env") => from_variable = true,
            ("type", "file") => from_variable = false,
            ("type", _) => return Err(wrong(format!("the type must be file or env, not `{value}`"))),
            _ => return Err(wrong(format!("unknown key `{key}`"))),
        }
    }
    if id.is_empty() {
        return Err(wrong("the id is missing".to_owned()));
    }
    if from_variable && variable.is_empty() {
        variable = std::mem::take(&mut file);
    }
    if variable.is_empty() && file.is_empty() {
        // A bare ID names the variable, if one has that name, else the file.
        match environment.get_raw(&id) {
            Some(_) => variable.clone_from(&id),
            None => file.clone_from(&id),
        }
    }
    if file.is_empty() {
        return Ok(Secret { id, source: SecretSource::Env(variable) });
    }
    let path = environment.resolve(&file);
    let found = std::fs::metadata(&path).map_err(|error| wrong(format!("failed to read {}", path.display())).because(&error))?;
    if found.is_dir() {
        return Err(wrong(format!("{} is a directory", path.display())));
    }
    if found.len() > MAX_SECRET_SIZE {
        return Err(wrong(format!("{} is larger than BuildKit's limit of 500 KiB", path.display())));
    }
    // If both are given, BuildKit uses the variable, although it checks the file.
    let source = if variable.is_empty() { SecretSource::File(path) } else { SecretSource::Env(variable) };
    Ok(Secret { id, source })
}

/// Parses the values of `--ssh`. For a git repository over ssh the agent is the default, as in buildx.
pub fn ssh(texts: &[String], git_over_ssh: bool, environment: &Environment) -> Result<Vec<SshSource>> {
    let mut out: Vec<SshSource> = Vec::new();
    let unasked = [String::from("default")];
    for text in if texts.is_empty() && git_over_ssh { &unasked } else { texts } {
        let source = ssh_source(text, environment)?;
        if out.iter().any(|other| other.id == source.id) {
            return Err(Error::usage(format!("invalid --ssh {text}: `{}` is given twice", source.id)));
        }
        out.push(source);
    }
    Ok(out)
}

fn ssh_source(text: &str, environment: &Environment) -> Result<SshSource> {
    let (id, paths) = match text.split_once('=') {
        Some((id, paths)) => (id, paths),
        None => (text, ""),
    };
    let id = if id.is_empty() { "default" } else { id };
    let paths: Vec<PathBuf> = match (paths, environment.get("SSH_AUTH_SOCK")) {
        ("", Some(socket)) => vec![environment.resolve(socket)],
        ("", None) => {
            return Err(Error::usage(format!("invalid --ssh {id}: no SSH agent found: SSH_AUTH_SOCK is not set"))
                .hint(format!("start one with `eval $(ssh-agent)` and `ssh-add`, or name a key: --ssh {id}=FILE")));
        }
        (paths, _) => paths.split(',').map(|path| environment.resolve(path)).collect(),
    };
    let mut sockets = 0;
    for path in &paths {
        let found = std::fs::metadata(path)
            .map_err(|error| Error::usage(format!("failed to read {} for --ssh {id}", path.display())).because(&error))?;
        if found.is_dir() {
            return Err(Error::usage(format!("invalid --ssh {id}: {} is a directory", path.display())));
        }
        sockets += usize::from(is_socket(&found));
    }
    if sockets > 0 && paths.len() > 1 {
        return Err(Error::usage(format!("invalid --ssh {text}: a socket cannot be combined with other paths")));
    }
    Ok(SshSource { id: id.to_owned(), paths })
}

#[cfg(unix)]
fn is_socket(found: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&found.file_type())
}

#[cfg(not(unix))]
fn is_socket(_: &std::fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(variables: &[(&str, &str)]) -> (tempfile::TempDir, Environment) {
        let folder = tempfile::tempdir().expect("a directory");
        std::fs::write(folder.path().join("token"), "x").expect("written");
        std::fs::write(folder.path().join("key"), "x").expect("written");
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let environment = Environment { current_dir: folder.path().to_owned(), variables, ..Environment::default() };
        (folder, environment)
    }

    #[test]
    fn secrets_are_files_or_variables() {
        let (folder, environment) = place(&[("VAR", "v"), ("bare", "")]);
        let file = SecretSource::File(folder.path().join("token"));
        let env = |name: &str| SecretSource::Env(name.to_owned());
        let of = |text: &str| secrets(&[text.to_owned()], &environment, &mut Vec::new());
        for (text, id, source) in [
            ("id=a,src=token", "a", file.clone()),
            ("type=file,id=a,source=token", "a", file.clone()),
            ("id=a,env=VAR", "a", env("VAR")),
            ("id=a,type=env,src=VAR", "a", env("VAR")),
            ("id=token", "token", file),
            ("id=bare", "bare", env("bare")),
            ("id=VAR,type=env", "VAR", env("VAR")),
        ] {
            assert_eq!(of(text).ok(), Some(vec![Secret { id: id.into(), source }]), "{text}");
        }
        for (text, word) in [
            ("src=token", "the id is missing"),
            ("id=a,src=nothere", "nothere"),
            ("id=a,type=x", "`x`"),
            ("id=a,x=y", "`x`"),
            ("a", "`a`"),
            ("id=a,src=.", "directory"),
        ] {
            assert!(of(text).is_err_and(|error| error.to_string().contains(word)), "{text}");
        }
    }

    #[test]
    fn a_variable_that_is_not_set_is_told() {
        let (_folder, environment) = place(&[]);
        let mut warnings = Vec::new();
        let twice = ["id=a,src=token".to_owned(), "id=a,env=NONE".to_owned()];
        assert_eq!(secrets(&twice, &environment, &mut warnings).map(|found| found.len()).ok(), Some(1));
        assert!(warnings.len() == 1 && warnings[0].contains("NONE"), "{warnings:?}");
    }

    #[test]
    fn agents_and_keys() {
        let (folder, environment) = place(&[("SSH_AUTH_SOCK", "key")]);
        let key = || vec![folder.path().join("key")];
        let of = |texts: &[&str], git: bool, environment: &Environment| {
            ssh(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), git, environment)
        };
        assert_eq!(of(&["default"], false, &environment).ok(), Some(vec![SshSource { id: "default".into(), paths: key() }]));
        assert_eq!(of(&["a=key,token"], false, &environment).map(|found| found[0].paths.len()).ok(), Some(2));
        assert_eq!(of(&[], true, &environment).map(|found| found.len()).ok(), Some(1));
        assert_eq!(of(&[], false, &environment).map(|found| found.len()).ok(), Some(0));
        let bare = Environment { current_dir: folder.path().to_owned(), ..Environment::default() };
        for (texts, word) in [(&["default"][..], "SSH_AUTH_SOCK"), (&["a=nothere"], "nothere"), (&["a=key", "a=token"], "twice")]
        {
            assert!(of(texts, false, &bare).is_err_and(|error| error.to_string().contains(word)), "{texts:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_socket_stands_alone() {
        let (folder, environment) = place(&[]);
        let _listener = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).expect("a socket");
        assert!(ssh(&["a=socket".to_owned()], false, &environment).is_ok());
        assert!(ssh(&["a=socket,key".to_owned()], false, &environment).is_err());
    }
}
