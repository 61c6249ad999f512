//! What the next run needs: every stage's cache, not only the last one's.
//!
//! An image's inline cache covers its own layers, so a Dockerfile of several stages loses the others. Beside `latest`
//! therefore stands one index, `latest-cache`: an image of each stage that other stages take files from, each with its own
//! inline cache, which Docker 20.10 to 24 import one by one; and all of them joined to one cache, for those that came later.
//! For a registry that is one tag, of plain manifests.

mod exit;
mod index;
mod joined;
mod stages;

pub use exit::Exit;
pub use index::{CACHE_SUFFIX, cache_reference, only_image, put_index, with_whole_cache};
pub use stages::{Executed, StageSaver, bare_config, stages_to_save};
