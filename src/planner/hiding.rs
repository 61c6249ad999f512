//! Registers the values that a build must hide from outputs and records: values of variables with names like secrets.

use crate::build::{Compiled, Input, declared};
use crate::engine::buildkit::pb;
use crate::event::Events;
use crate::graph::Graph;
use crate::hidden::{Hidden, is_plainly_secret};
use crate::settings::BuildSettings;

/// Hides the values of build arguments. hakobi must not report anything of a build before this.
pub fn hide_arguments(build: &BuildSettings, hidden: &Hidden) {
    for (name, value) in &build.build_args {
        hidden.add_variable(name, Some(value));
    }
}

/// Warns of build arguments that look like secrets. Docker writes their values into the image's history.
pub fn warn_of_secrets(build: &BuildSettings, events: &Events) {
    for (name, value) in &build.build_args {
        if is_plainly_secret(name, value) {
            events.warning(format!(
                "the build argument {name} looks like a secret, and the image's history may show it: use --secret"
            ));
        }
    }
}

/// Hides the values that the Dockerfile declares. hakobi must not report its steps before this.
pub fn hide_declared(input: &Input, hidden: &Hidden) {
    // If the file is not readable, the build reports that.
    let Some(text) = input.dockerfile() else { return };
    for (name, value) in declared(&String::from_utf8_lossy(&text)) {
        hidden.add_variable(&name, value.as_deref());
    }
}

/// Hides the values of the image's variables.
pub fn hide_found(compiled: &Compiled, hidden: &Hidden) {
    #[derive(serde::Deserialize, Default)]
    struct Config {
        #[serde(default)]
        config: Inner,
    }
    #[derive(serde::Deserialize, Default)]
    struct Inner {
        #[serde(default, rename = "Env")]
        env: Option<Vec<String>>,
    }
    let config: Config = serde_json::from_slice(&compiled.config).unwrap_or_default();
    let mut all = config.config.env.unwrap_or_default();
    if let Ok(graph) = Graph::new(compiled.definition.clone()) {
        for op in graph.below(graph.result()) {
            if let Some(pb::op::Op::Exec(exec)) = &op.op.op {
                all.extend(exec.meta.iter().flat_map(|meta| meta.env.iter().cloned()));
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    for (name, value) in all.iter().filter_map(|variable| variable.split_once('=')) {
        hidden.add_found(name, value);
    }
}
