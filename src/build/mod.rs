//! The build: what the user asked for as BuildKit's options, session and exporters, and its result.

mod compile;
mod credentials;
mod input;
mod options;

pub use compile::{Compiled, compile_failure};
pub use credentials::SessionCredentials;
pub use input::Input;
pub use options::frontend_options;
