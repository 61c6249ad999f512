//! What the next run needs: every stage's cache, not only the last one's.
//!
//! An image's inline cache covers its own layers, so a Dockerfile of several stages loses the others. Beside `latest`
//! therefore stands one index, `latest-cache`: an image of each stage that other stages take files from, each with its own
//! inline cache. BuildKit takes an index of images as one cache import on every engine (`importInlineCache`), and a registry
//! as one tag.

mod index;
mod stages;

pub use index::{CACHE_SUFFIX, STAGE_ANNOTATION, cache_reference, put_index, with_carried_cache};
pub use stages::{Executed, StageSaver, stages_to_save};
