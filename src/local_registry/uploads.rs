//! Uploads under way, by the ID that their URL ends with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::transfer::{Spool, SpoolWriter};

/// One upload between two requests.
pub(super) struct Upload {
    pub(super) writer: SpoolWriter,
    pub(super) spool: Spool,
}

/// All of them. One is taken out while a request writes to it.
#[derive(Clone, Default)]
pub(super) struct Uploads(Arc<Mutex<HashMap<String, Upload>>>);

impl Uploads {
    pub(super) fn put(&self, id: String, upload: Upload) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, upload);
    }

    pub(super) fn take(&self, id: &str) -> Option<Upload> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
    }
}
