//! Manifests and tags of one repository: children by digest, then every tag.

use crate::domain::{ImageRef, RawManifest};
use crate::event::Events;
use crate::registry::{Error, Home, Put};

/// What became of a tag.
#[derive(Debug, Clone)]
pub struct TagOutcome {
    /// The target.
    pub reference: ImageRef,
    /// What became of it.
    pub state: Result<TagState, Error>,
}

/// How a tag came to stand for the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagState {
    /// It was put.
    Pushed,
    /// It may not be moved, and stood for the same manifest already.
    AlreadyThere,
}

impl TagOutcome {
    /// Whether the tag stands for the manifest now.
    #[must_use]
    pub fn is_pushed(&self) -> bool {
        self.state.is_ok()
    }
}

/// Puts a manifest under the references, which are all of this repository.
pub(super) async fn put(
    home: &dyn Home,
    manifest: &RawManifest,
    children: &[RawManifest],
    references: Vec<ImageRef>,
    events: &Events,
) -> Vec<TagOutcome> {
    if references.is_empty() {
        return Vec::new();
    }
    let digest = manifest.digest();
    let outcome = |reference: ImageRef, state| TagOutcome { reference, state };
    if let Err(error) = put_children(home, children, events).await {
        return references.into_iter().map(|reference| outcome(reference, Err(error.clone()))).collect();
    }
    let mut outcomes = Vec::new();
    for reference in references {
        let name = reference.tag.clone().unwrap_or_else(|| digest.to_string());
        let step = events.step(format!("pushing manifest {digest} to {}:{name}", home.repository()));
        let state = match home.put_manifest(manifest, &name).await {
            Ok(Put::Pushed) => {
                step.done();
                Ok(TagState::Pushed)
            }
            Ok(Put::AlreadyThere) => {
                step.cached();
                Ok(TagState::AlreadyThere)
            }
            Err(error) => {
                step.failed(&error);
                Err(error)
            }
        };
        outcomes.push(outcome(reference, state));
    }
    outcomes
}

async fn put_children(home: &dyn Home, children: &[RawManifest], events: &Events) -> Result<(), Error> {
    for child in children {
        let digest = child.digest();
        let step = events.step(format!("pushing manifest {digest} to {}", home.repository()));
        match home.put_manifest(child, &digest.to_string()).await {
            Ok(_) => step.done(),
            Err(error) => {
                step.failed(&error);
                return Err(error);
            }
        }
    }
    Ok(())
}
