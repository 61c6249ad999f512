//! Tells a store's pace of the bytes of an upload.

use std::sync::{Arc, Mutex, PoisonError};

use crate::registry::Progress;
use crate::store::Pace;

/// Returns the progress of an upload that counts for a pace. Bytes that are sent again do not count again.
pub fn progress(pace: &Pace) -> Progress {
    let (pace, moved) = (pace.clone(), Mutex::new(0));
    Arc::new(move |sent| {
        let mut moved = moved.lock().unwrap_or_else(PoisonError::into_inner);
        pace.moved(sent.saturating_sub(*moved));
        *moved = sent.max(*moved);
    })
}
