//! Saves what the next run needs: the cache of every stage, not only of the last one.
//!
//! An image's inline cache covers its own layers, so a Dockerfile of several stages loses the others. Therefore the cache has one
//! index for each image. It has an image of each stage that other stages copy files from. Each image has its own inline cache, and
//! Docker 20.10 to 24 import these one by one. The index also has all of these joined to one cache, for later versions.

mod exit;
mod index;
mod joined;
mod stages;

pub use exit::Exit;
pub use index::{only_image, put_index, with_whole_cache};
pub use stages::{Executed, StageSaver, bare_config, stages_to_save};
