//! Uploads in progress, by the ID at the end of their URL.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::transfer::{Spool, SpoolWriter};

/// An upload between two requests.
pub(super) struct Upload {
    pub(super) writer: SpoolWriter,
    pub(super) spool: Spool,
}

/// All uploads. A request that writes to an upload takes it out.
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
