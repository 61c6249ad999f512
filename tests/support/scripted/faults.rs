//! The faults of a scripted daemon.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tonic::{Code, Status};

/// A point of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The client opens the session.
    Session,
    /// The frontend compiles.
    Compile,
    /// The daemon solves a graph. The name has the names of its steps.
    Solve,
    /// A step runs. The name is the step's.
    Step,
    /// An exporter writes. The name is the exporter's kind.
    Export,
    /// The gateway's client returns its result. The build goes on.
    Return,
    /// The build ends, and with it the log of its steps. The name has the kinds of its exporters.
    End,
}

/// The fault at a point.
#[derive(Clone)]
pub enum Fault {
    /// The call fails with this error.
    Refused(Code, &'static str),
    /// The call fails with this error, which has details.
    Detailed(Box<Status>),
    /// The call is never answered.
    Unanswered,
    /// The connection breaks. The daemon answers the next one.
    Cut,
    /// The connection breaks. The daemon answers no other one.
    Gone,
    /// The call succeeds, but this function runs just before.
    Meanwhile(Arc<dyn Fn() + Send + Sync>),
}

struct Rule {
    point: Point,
    named: String,
    skip: usize,
    times: usize,
    fault: Fault,
}

/// The faults of a daemon.
#[derive(Default)]
pub struct Faults {
    rules: Mutex<Vec<Rule>>,
    gone: AtomicBool,
    /// Closes the open connections.
    pub cut: tokio::sync::Notify,
}

impl Faults {
    /// Adds a fault at a point whose name contains this text. The first `skip` calls succeed, and the next `times` calls fail.
    pub fn add(&self, point: Point, named: &str, skip: usize, times: usize, fault: Fault) {
        self.rules.lock().unwrap().push(Rule { point, named: named.to_owned(), skip, times, fault });
    }

    /// Removes all faults.
    pub fn mend(&self) {
        self.rules.lock().unwrap().clear();
        self.gone.store(false, Ordering::SeqCst);
    }

    /// Returns whether the daemon answers no connection any more.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Passes a point. If the connection breaks there, or the call is never answered, this never returns.
    ///
    /// # Errors
    /// If a fault fails the call.
    pub async fn pass(&self, point: Point, named: &str) -> Result<(), Status> {
        let fault = self.next(point, named);
        if let Some(Fault::Unanswered) = &fault {
            std::future::pending::<()>().await;
        }
        if let Some(Fault::Cut | Fault::Gone) = &fault {
            self.gone.store(matches!(fault, Some(Fault::Gone)), Ordering::SeqCst);
            self.cut.notify_waiters();
            std::future::pending::<()>().await;
        }
        self.refuse(fault)
    }

    /// Passes a point at which no connection can break.
    ///
    /// # Errors
    /// If a fault fails the call.
    pub fn at(&self, point: Point, named: &str) -> Result<(), Status> {
        let fault = self.next(point, named);
        self.refuse(fault)
    }

    fn next(&self, point: Point, named: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        let mut rules = rules.iter_mut().filter(|rule| rule.point == point && named.contains(&rule.named));
        rules.find_map(|rule| match (rule.skip, rule.times) {
            (0, 0) => None,
            (0, _) => {
                rule.times -= 1;
                Some(rule.fault.clone())
            }
            _ => {
                rule.skip -= 1;
                None
            }
        })
    }

    fn refuse(&self, fault: Option<Fault>) -> Result<(), Status> {
        match fault {
            Some(Fault::Refused(code, words)) => return Err(Status::new(code, words)),
            Some(Fault::Detailed(status)) => return Err(*status),
            Some(Fault::Meanwhile(happens)) => happens(),
            _ => {}
        }
        Ok(())
    }
}
