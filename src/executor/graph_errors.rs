//! Small helpers for graphs and configurations.

use crate::error::Error;

pub fn broken(error: &(dyn std::error::Error + 'static)) -> Error {
    Error::build("failed to assemble the build graph").because(error)
}

/// Returns when each layer was created, from the image's history.
pub fn created(config: &[u8], layers: usize) -> Vec<Option<String>> {
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        created: Option<String>,
        #[serde(default)]
        empty_layer: bool,
    }
    #[derive(serde::Deserialize)]
    struct History {
        #[serde(default)]
        history: Vec<Entry>,
    }
    let history = serde_json::from_slice::<History>(config).map(|config| config.history).unwrap_or_default();
    let times: Vec<Option<String>> = history.into_iter().filter(|entry| !entry.empty_layer).map(|entry| entry.created).collect();
    if times.len() == layers { times } else { vec![None; layers] }
}
