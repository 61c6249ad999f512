//! How a registry is logged in to: its challenge, and the token service behind it.

mod challenge;
mod scope;
mod token;

pub(super) use challenge::Challenge;
pub(super) use scope::Scope;
pub use token::Token;
pub(super) use token::{Ask, NoToken, fetch};
