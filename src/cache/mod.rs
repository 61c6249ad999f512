//! Holds what a build knows of its store: the session that serves it, typed reads of records, and the judgement of its faults.

pub mod fault;
pub mod faults;
pub mod last_cold;
pub mod layer_index;
pub mod layout;
pub mod opened;
pub mod record_reader;
pub mod session;
#[cfg(test)]
pub mod testing;
