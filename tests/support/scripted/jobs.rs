//! The running builds of a scripted daemon: the log of their steps, their solved graphs, and their end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1 as api;
use bollard_buildkit_proto::moby::buildkit::v1::frontend;
use bollard_buildkit_proto::pb;
use tokio::sync::{Notify, oneshot};
use tonic::Status;

use super::layers::Result;
use super::session::Session;

/// The result with which a client ends its build.
pub type Returned = std::result::Result<frontend::Result, rpc::Status>;

/// A build.
#[derive(Default)]
pub struct Job {
    pub session: String,
    /// The graphs that it solved, by their references.
    pub solved: Mutex<HashMap<String, pb::Definition>>,
    pub returned: Mutex<Option<oneshot::Sender<Returned>>>,
    log: Arc<Log>,
}

impl Job {
    /// Adds an event of a step to the log.
    pub fn tell(&self, vertex: api::Vertex) {
        self.log.add(Some(vertex));
    }
}

/// The events of a build's steps. The last entry is empty.
#[derive(Default)]
pub struct Log {
    entries: Mutex<Vec<Option<api::Vertex>>>,
    more: Notify,
}

impl Log {
    fn add(&self, entry: Option<api::Vertex>) {
        self.entries.lock().unwrap().push(entry);
        self.more.notify_waiters();
    }

    /// Returns the entry at this position, and waits until it exists.
    pub async fn entry(&self, place: usize) -> Option<api::Vertex> {
        loop {
            let more = self.more.notified();
            if let Some(entry) = self.entries.lock().unwrap().get(place) {
                return entry.clone();
            }
            // Another task may add an entry between the check and the wait, so the wait is short.
            let _ = tokio::time::timeout(Duration::from_millis(20), more).await;
        }
    }
}

/// All builds and sessions.
#[derive(Default)]
pub struct Jobs {
    jobs: Mutex<HashMap<String, Arc<Job>>>,
    logs: Mutex<HashMap<String, Arc<Log>>>,
    sessions: Mutex<HashMap<String, Session>>,
}

impl Jobs {
    /// Begins a build. The receiver gets the result with which the client ends it.
    pub fn begin(&self, id: &str, session: &str) -> (Arc<Job>, oneshot::Receiver<Returned>) {
        let (sender, receiver) = oneshot::channel();
        let returned = Mutex::new(Some(sender));
        let job = Arc::new(Job { session: session.to_owned(), returned, log: self.log(id), ..Job::default() });
        self.jobs.lock().unwrap().insert(id.to_owned(), Arc::clone(&job));
        (job, receiver)
    }

    pub fn end(&self, id: &str) {
        self.jobs.lock().unwrap().remove(id);
        self.log(id).add(None);
    }

    /// Returns the log of a build, even if the build has not begun.
    pub fn log(&self, id: &str) -> Arc<Log> {
        Arc::clone(self.logs.lock().unwrap().entry(id.to_owned()).or_default())
    }

    /// Returns a running build, and waits for one that has not begun.
    pub async fn find(&self, id: &str) -> Result<Arc<Job>> {
        for _ in 0..500 {
            if let Some(job) = self.jobs.lock().unwrap().get(id) {
                return Ok(Arc::clone(job));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Status::not_found(format!("no such job {id}")))
    }

    pub fn add_session(&self, id: String, session: Session) {
        self.sessions.lock().unwrap().insert(id, session);
    }

    pub async fn session(&self, id: &str) -> Result<Session> {
        for _ in 0..500 {
            if let Some(session) = self.sessions.lock().unwrap().get(id) {
                return Ok(session.clone());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Status::not_found(format!("no active session for {id}")))
    }
}
