//! What a build has to hide from outputs and records: values of variables that are called like secrets.

use crate::build::{Compiled, Input, declared};
use crate::engine::buildkit::pb;
use crate::graph::Graph;
use crate::hidden::Hidden;
use crate::settings::BuildSettings;

/// Hides the build arguments. Nothing may be told of a build before that.
pub fn hide_arguments(build: &BuildSettings, hidden: &Hidden) {
    for (name, value) in &build.build_args {
        hidden.add_variable(name, Some(value));
    }
}

/// Hides what the Dockerfile declares. Nothing may be told of its steps before that.
pub fn hide_declared(input: &Input, hidden: &Hidden) {
    // What cannot be read here is told by the build.
    let Some(text) = input.dockerfile() else { return };
    for (name, value) in declared(&String::from_utf8_lossy(&text)) {
        hidden.add_variable(&name, value.as_deref());
    }
}

/// Hides the values that the variables turned out to have.
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
