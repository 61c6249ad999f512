//! The frontend's options, in BuildKit's names.

use std::collections::HashMap;

use super::input::Input;
use crate::engine::buildkit::CacheOption;
use crate::settings::BuildSettings;

/// Returns all options for `dockerfile.v0`.
#[must_use]
pub fn frontend_options(settings: &BuildSettings, input: &Input, imports: &[CacheOption]) -> HashMap<String, String> {
    let mut options: HashMap<String, String> = settings.frontend_options.clone().into_iter().collect();
    options.extend(input.options.clone());
    options.extend(settings.build_args.iter().map(|(name, value)| (format!("build-arg:{name}"), value.clone())));
    options.extend(settings.labels.iter().map(|(name, value)| (format!("label:{name}"), value.clone())));
    if let Some(target) = &settings.target {
        options.insert("target".to_owned(), target.clone());
    }
    if !settings.platforms.is_empty() {
        let platforms: Vec<String> = settings.platforms.iter().map(ToString::to_string).collect();
        options.insert("platform".to_owned(), platforms.join(","));
    }
    if !settings.named_contexts.is_empty() {
        options.insert("frontend.caps".to_owned(), "moby.buildkit.frontend.contexts+forward".to_owned());
    }
    if !imports.is_empty() {
        // BuildKit ignores the request's field for Dockerfiles: the frontend passes these imports with each of its solves.
        options.insert("cache-imports".to_owned(), serde_json::to_string(imports).unwrap_or_default());
    }
    options
}
