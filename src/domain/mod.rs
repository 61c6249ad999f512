//! The basic types as values: digests, references, platforms, manifests. Pure, but for the clock.

mod clock;
mod digest;
mod inline_cache;
mod made;
mod manifest;
mod name;
mod path;
mod platform;
mod reason;
mod reference;
mod selector;
mod wildcard;

pub use clock::seconds_now;
pub use digest::{ChainId, CopiedContentKey, DiffId, Digest, Hasher, InvalidDigest, OperationKey, PartialKey, StepKey};
pub use inline_cache::{CacheLayer, INLINE_CACHE_KEY, InlineCache, comparable};
pub use made::{Likeness, Made};
pub use manifest::{Descriptor, DescriptorPlatform, ImageConfig, Index, Manifest, RawManifest, RootFs, media_type, retyped};
pub use name::{bytes_of, is_utf8, path_of, shown, spelled, spelled_text};
pub use path::is_below;
pub use platform::{InvalidPlatform, Platform};
pub use reason::COPIED_AGAIN;
pub use reference::{ImageRef, InvalidReference, RegistryHost, Repository};
pub use selector::{Selector, has_wildcards};
pub use wildcard::matches_wildcard;
