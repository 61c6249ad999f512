//! The order of things, and nothing else: sole owner of what comes after what.

mod build;
mod call;
mod outputs;
mod promote;
mod push;
mod release;
mod saving;

pub use build::{Built, build};
pub use promote::promote;
pub use push::push;
