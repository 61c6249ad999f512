//! What a scripted daemon does wrong, and when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tonic::{Code, Status};

/// Where in a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The session is opened.
    Session,
    /// The frontend compiles.
    Compile,
    /// A graph is solved, which is told by the names of its steps.
    Solve,
    /// A step runs, which is told by its name.
    Step,
    /// An exporter writes, which is told by its kind.
    Export,
    /// A build ends, and what is said of its steps with it; told by the kinds of its exporters.
    End,
}

/// What happens there.
#[derive(Clone)]
pub enum Fault {
    /// It is refused in these words.
    Refused(Code, &'static str),
    /// The connection breaks off, and the daemon answers the next.
    Cut,
    /// The connection breaks off, and the daemon answers no more.
    Gone,
    /// It goes well, and something else happens just before.
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
    /// Ends the connections that are open.
    pub cut: tokio::sync::Notify,
}

impl Faults {
    /// At a point whose name has this in it, the first `skip` times go well, the next `times` do not.
    pub fn add(&self, point: Point, named: &str, skip: usize, times: usize, fault: Fault) {
        self.rules.lock().unwrap().push(Rule { point, named: named.to_owned(), skip, times, fault });
    }

    /// All goes well from here on.
    pub fn mend(&self) {
        self.rules.lock().unwrap().clear();
        self.gone.store(false, Ordering::SeqCst);
    }

    /// Whether no connection is answered any more.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Comes by a point. A connection that breaks off has no answer.
    ///
    /// # Errors
    /// If it is refused there.
    pub async fn pass(&self, point: Point, named: &str) -> Result<(), Status> {
        let fault = self.next(point, named);
        if let Some(Fault::Cut | Fault::Gone) = &fault {
            self.gone.store(matches!(fault, Some(Fault::Gone)), Ordering::SeqCst);
            self.cut.notify_waiters();
            std::future::pending::<()>().await;
        }
        self.refuse(fault)
    }

    /// Comes by a point at which no connection can break off.
    ///
    /// # Errors
    /// If it is refused there.
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
            Some(Fault::Meanwhile(happens)) => happens(),
            _ => {}
        }
        Ok(())
    }
}
