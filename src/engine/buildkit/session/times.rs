//! The times with which a session sends local files: those that its owner chose, and a note of those that were sent.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use crate::build_context::{Entry, EntryKind};
use crate::domain::{Digest, Hasher};

/// Times of local files in nanoseconds since 1970, by the name of the local directory and the path in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SentTimes(HashMap<String, HashMap<String, i64>>);

impl SentTimes {
    /// Sets the time of a path.
    pub fn insert(&mut self, directory: &str, path: &str, time: i64) {
        self.of_mut(directory).insert(path.to_owned(), time);
    }

    /// Returns the time of a path. Returns `None` if there is none.
    #[must_use]
    pub fn get(&self, directory: &str, path: &str) -> Option<i64> {
        self.0.get(directory)?.get(path).copied()
    }

    /// Returns all times, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, i64)> {
        self.0.iter().flat_map(|(directory, times)| times.iter().map(move |(path, time)| (&**directory, &**path, *time)))
    }

    /// Returns whether there are no times.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(HashMap::is_empty)
    }

    /// Returns a digest of the times of one directory. A daemon that has an older copy of a directory does not correct the times of
    /// directories in it, unless the name of the copy tells the times apart.
    #[must_use]
    pub fn digest(&self, directory: &str) -> Digest {
        let mut hasher = Hasher::default();
        let sorted: BTreeMap<_, _> = self.0.get(directory).into_iter().flatten().collect();
        for (path, time) in sorted {
            hasher.update(format!("{path}\0{time}\n").as_bytes());
        }
        hasher.digest()
    }

    fn of_mut(&mut self, directory: &str) -> &mut HashMap<String, i64> {
        self.0.entry(directory.to_owned()).or_default()
    }
}

/// The times of a session. The session and its owner share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Times(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    chosen: Option<Arc<SentTimes>>,
    sent: SentTimes,
}

impl Times {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn choose(&self, times: Arc<SentTimes>) {
        self.state().chosen = Some(times);
    }

    pub(super) fn chosen(&self) -> Option<Arc<SentTimes>> {
        self.state().chosen.clone()
    }

    /// Returns what was sent. If a path was sent several times, its latest time counts.
    pub(super) fn sent(&self) -> SentTimes {
        self.state().sent.clone()
    }

    /// Notes the times of a complete list.
    pub(super) fn note(&self, directory: &str, times: Vec<(String, i64)>) {
        let mut state = self.state();
        let noted = state.sent.of_mut(directory);
        for (path, time) in times {
            noted.entry(path).and_modify(|noted| *noted = time.max(*noted)).or_insert(time);
        }
    }
}

/// The times of one transfer.
pub(super) struct Sender {
    directory: String,
    chosen: Option<Arc<SentTimes>>,
    /// The times of files with several names, by the first name.
    linked: HashMap<String, i64>,
}

impl Sender {
    pub(super) fn new(directory: &str, chosen: Option<Arc<SentTimes>>) -> Self {
        Self { directory: directory.to_owned(), chosen, linked: HashMap::new() }
    }

    /// Returns whether [`Sender::learn`] must see the entries before the first is sent.
    pub(super) fn is_chosen(&self) -> bool {
        self.chosen.is_some()
    }

    /// Learns the names of a file with several names. They share one time in the daemon, and BuildKit sets it once for each name, in
    /// no particular order: so all must have the latest.
    pub(super) fn learn(&mut self, entry: &Entry) {
        if let EntryKind::HardLink(first) = &entry.kind {
            let time = self.chosen(&entry.path, entry.modified);
            // The names have one time of their own.
            let of_first = self.chosen(first, entry.modified);
            let linked = self.linked.entry(first.clone()).or_insert(of_first);
            *linked = time.max(*linked);
        }
    }

    /// Returns the time to send.
    pub(super) fn time(&self, entry: &Entry) -> i64 {
        let first = if let EntryKind::HardLink(first) = &entry.kind { first } else { &entry.path };
        self.linked.get(first).copied().unwrap_or_else(|| self.chosen(&entry.path, entry.modified))
    }

    fn chosen(&self, path: &str, own: i64) -> i64 {
        self.chosen.as_ref().and_then(|chosen| chosen.get(&self.directory, path)).unwrap_or(own)
    }
}
