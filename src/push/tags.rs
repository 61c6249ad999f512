//! Pushes the manifests and tags of one repository: children by digest, then every tag.

use crate::domain::{ImageRef, RawManifest};
use crate::event::Events;
use crate::registry::{Error, Home, Put};

/// The result for a tag.
#[derive(Debug, Clone)]
pub struct TagOutcome {
    /// The target.
    pub reference: ImageRef,
    /// The result.
    pub state: Result<TagState, Error>,
}

/// How a tag came to point to the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagState {
    /// hakobi pushed it.
    Pushed,
    /// It may not be moved, and already pointed to the same manifest.
    AlreadyThere,
}

impl TagOutcome {
    /// Returns whether the tag points to the manifest now.
    #[must_use]
    pub fn is_pushed(&self) -> bool {
        self.state.is_ok()
    }
}

/// Pushes a manifest under references of this repository.
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
