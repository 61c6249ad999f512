//! `docker hakobi …`: the program as a plugin of Docker's command line, under the name `docker-hakobi` (docker/cli,
//! `cli-plugins/manager`).

use std::ffi::OsString;
use std::path::Path;

use serde_json::json;

/// The command with which docker asks a plugin for its metadata.
const METADATA: &str = "docker-cli-plugin-metadata";

/// Docker's flags whose value is a separate argument.
const TAKING: [&str; 10] =
    ["-H", "--host", "-c", "--context", "-l", "--log-level", "--config", "--tlscacert", "--tlscert", "--tlskey"];

/// The kind of a call.
pub enum Called {
    /// Docker asks for the metadata. This is the answer.
    Asked(String),
    /// A usual call with these arguments. The first is the program's name.
    With(Vec<OsString>),
}

/// Removes the arguments that docker puts before a plugin's own ones.
pub fn arguments(mut args: Vec<OsString>) -> Called {
    let name = args.first().and_then(|name| Path::new(name).file_stem());
    if name.is_none_or(|name| name != "docker-hakobi") {
        return Called::With(args);
    }
    if args.get(1).is_some_and(|argument| argument == METADATA) {
        let metadata = json!({
            "SchemaVersion": "0.1.0",
            "Vendor": "hakobi",
            "Version": env!("CARGO_PKG_VERSION"),
            "ShortDescription": "Build and push only what changed",
        });
        return Called::Asked(format!("{metadata}\n"));
    }
    // The plugin's name comes first, or after docker's flags and their values.
    let mut place = 1;
    while let Some(flag) = args.get(place).and_then(|argument| argument.to_str()).filter(|argument| argument.starts_with('-')) {
        place += if TAKING.contains(&flag) { 2 } else { 1 };
    }
    if args.get(place).is_some_and(|argument| argument == "hakobi") {
        args.remove(place);
    }
    Called::With(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(args: &[&str]) -> Vec<String> {
        match arguments(args.iter().map(Into::into).collect()) {
            Called::Asked(text) => vec![text],
            Called::With(args) => args.into_iter().map(|argument| argument.into_string().unwrap()).collect(),
        }
    }

    #[test]
    fn docker_calls_it_by_its_name() {
        let plugin = "/root/.docker/cli-plugins/docker-hakobi";
        assert_eq!(called(&[plugin, "hakobi", "build", "hakobi"]), [plugin, "build", "hakobi"]);
        assert_eq!(called(&[plugin, "-H", "tcp://x", "hakobi", "build"]), [plugin, "-H", "tcp://x", "build"]);
        assert_eq!(called(&[plugin, "--tlskey", "k", "hakobi", "build"]), [plugin, "--tlskey", "k", "build"]);
        assert!(called(&[plugin, METADATA])[0].contains("\"SchemaVersion\":\"0.1.0\""));
        assert_eq!(called(&["hakobi", "build", "hakobi"]), ["hakobi", "build", "hakobi"]);
        assert_eq!(called(&[plugin, "build", "hakobi"]), [plugin, "build", "hakobi"], "called by itself");
    }
}
