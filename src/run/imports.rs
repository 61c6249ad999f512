//! The images that BuildKit imports its cache from: the pulled-latest image with its stages, and the images of the cache.

use std::collections::{BTreeMap, HashSet};

use crate::cache::fault::with_remedy;
use crate::cache::faults::CacheFaults;
use crate::cache::session::CacheSession;
use crate::domain::{Digest, ImageRef};
use crate::engine::buildkit::CacheOption;
use crate::error::Result;
use crate::handover::{CachedStages, KnownImage, load, load_stages};
use crate::run::daemon::DaemonBuild;
use crate::run::transport::LayerTransport;
use crate::settings::CacheFrom;

/// From this API version on (Docker 25, BuildKit 0.12), a cache may be an image manifest in registries.
pub const JOINED_CACHE_API: (u32, u32) = (1, 44);

/// The caches that a build starts with.
#[derive(Default)]
pub struct CacheImports {
    pub imports: Vec<CacheOption>,
    /// The pulled-latest images.
    pub latest: Vec<KnownImage>,
    /// The images in the store.
    pub cached: Vec<KnownImage>,
    /// Whether these images come from the own scope.
    pub own: bool,
    /// Imports from the store.
    pub from_store: Vec<CacheOption>,
}

impl CacheImports {
    /// Returns images that a registry or the store has.
    pub fn known(&self) -> Vec<KnownImage> {
        self.latest.iter().chain(&self.cached).cloned().collect()
    }

    /// Returns the pulled-latest images. The store's images are left out: with a plan, its records say more.
    pub fn latest(&self) -> &[KnownImage] {
        &self.latest
    }

    /// Returns the images that the new image may be equal to.
    pub fn before(&self) -> Vec<KnownImage> {
        let released = self.cached.iter().filter(|image| image.stage() == Some(""));
        self.latest.iter().chain(released).cloned().collect()
    }

    /// Returns the layers that the store has.
    pub fn cached_layers(&self) -> HashSet<Digest> {
        self.cached.iter().flat_map(|image| &image.manifest.layers).map(|layer| layer.digest.clone()).collect()
    }

    /// Returns all caches that BuildKit may import.
    pub fn all_imports(&self) -> Vec<CacheOption> {
        self.imports.iter().chain(&self.from_store).cloned().collect()
    }
}

/// Looks up the images of the cache references, and returns the imports for BuildKit.
///
/// # Errors
/// If the cache fails and is required.
pub async fn find(daemon: &DaemonBuild<'_>) -> Result<CacheImports> {
    let mut imports = CacheImports::default();
    if let Some((session, faults)) = daemon.context.cache.usable() {
        stored(daemon, &mut imports, session, faults).await?;
    }
    for from in &daemon.context.build.cache_from {
        match from {
            CacheFrom::Entry(entry) => {
                imports.imports.push(CacheOption { kind: entry.kind.clone(), attributes: entry.attributes.clone() });
            }
            CacheFrom::Latest(latest) => {
                let image = load(&daemon.context.registries, latest, None).await;
                let image = looked_up(daemon, latest, image);
                if image.is_empty() {
                    daemon
                        .context
                        .events
                        .note(format!("found no image at {latest} to start from: this is the first build, or the name is wrong"));
                }
                // hakobi's own images have no cache of BuildKit: their records are in the cache.
                if image.iter().any(|image| image.inline_cache.is_some()) {
                    imports.imports.push(import(daemon, latest));
                }
                imports.latest.extend(image);
            }
        }
    }
    Ok(imports)
}

/// Looks up the store's images of this tag: those of the own scope, or of the first fallback that has any.
///
/// # Errors
/// If the cache fails and is required.
pub async fn stored(
    daemon: &DaemonBuild<'_>,
    imports: &mut CacheImports,
    session: &CacheSession,
    faults: &CacheFaults<'_>,
) -> Result<()> {
    for (place, (scope, reference)) in session.references().enumerate() {
        match load_stages(&daemon.context.registries, &reference).await {
            Ok(stages) if stages.images.is_empty() => {}
            Ok(stages) => {
                import_stages(daemon, &mut imports.from_store, &stages);
                if daemon.transport == LayerTransport::Archive {
                    imports.from_store.iter_mut().for_each(through_session);
                }
                imports.cached = stages.images;
                imports.own = place == 0;
                return Ok(());
            }
            Err(error) => {
                let attempt = format!("failed to read the scope {scope} of");
                faults.warn(&attempt, &error)?;
            }
        }
    }
    Ok(())
}

/// Returns the result of a look-up at a cache reference. A fault is a warning and a colder build.
pub fn looked_up<T: Default>(daemon: &DaemonBuild<'_>, reference: &ImageRef, found: crate::registry::Result<T>) -> T {
    found.unwrap_or_else(|error| {
        let text = format!("continuing without the cache at {reference}: {error}");
        daemon.context.events.warning(with_remedy(text, error.hint().as_deref()));
        T::default()
    })
}

/// Adds the imports for BuildKit: the fewest that contain everything. If two imports contain a step, BuildKit may choose the one
/// that has no result for it.
fn import_stages(daemon: &DaemonBuild<'_>, imports: &mut Vec<CacheOption>, stages: &CachedStages) {
    match &stages.joined {
        Some(joined) if daemon.info.api >= JOINED_CACHE_API => imports.push(import(daemon, joined)),
        // Each image is its own import: BuildKit gives all images of an index one name, and then loses some.
        _ => imports.extend(stages.images.iter().map(|stage| import(daemon, &stage.reference()))),
    }
}

pub fn import(daemon: &DaemonBuild<'_>, reference: &ImageRef) -> CacheOption {
    let mut attributes = BTreeMap::from([("ref".to_owned(), reference.to_string())]);
    if daemon.context.settings.registries.insecure.contains(&reference.repository.host) {
        attributes.insert("registry.insecure".to_owned(), "true".to_owned());
    }
    CacheOption { kind: "registry".to_owned(), attributes }
}

/// Changes an import so that BuildKit reads the image through the session. The content store has the repository's name.
pub fn through_session(import: &mut CacheOption) {
    let Some((repository, digest)) = import.attributes.get("ref").and_then(|reference| reference.split_once('@')) else { return };
    let attributes = [("src", repository), ("digest", digest)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    *import = CacheOption { kind: "local".to_owned(), attributes: attributes.into() };
}
