//! The build: the user's request as BuildKit's options, session and exporters, and its result.

mod compile;
mod credentials;
mod excerpt;
mod failure;
mod input;
mod options;
mod sources;
mod variables;

pub use compile::Compiled;
pub use credentials::SessionCredentials;
pub use excerpt::check_failure;
pub use failure::{Failed, Refusal, failure, is_cut_off, is_passing};
pub use input::Input;
pub use options::frontend_options;
pub use sources::FrontendFile;
pub use variables::declared;
