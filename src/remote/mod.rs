//! What files and repositories elsewhere are now, asked as BuildKit asks: files in `http`, repositories in `git`.

mod git;
mod http;

pub use git::commit;
pub use http::{Client, Found, Version};
