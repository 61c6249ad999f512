//! A build's access to its store: the session that serves it to the daemon, typed reads of records, and the judgement of its
//! faults.

#[cfg(test)]
mod error_tests;
pub mod fault;
pub mod faults;
pub mod keys;
pub mod last_cold;
pub mod layer_index;
pub mod layout;
pub mod opened;
pub mod record_reader;
pub mod session;
#[cfg(test)]
pub mod testing;
pub mod uses;
