//! Registry logins: the challenge of a registry, and its token service.

mod challenge;
mod scope;
mod token;

pub(super) use challenge::Challenge;
pub(super) use scope::Scope;
pub use token::Token;
pub(super) use token::{Ask, NoToken, fetch};
