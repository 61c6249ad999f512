//! Faults of the cache in words, with what the user can do about them.

use crate::error::{Error, Kind};

/// What is amiss with the cache, and what the user can do about it: errors of all rooms, and words of a build's own.
pub trait Fault: std::fmt::Display {
    /// What to do about it. `None` if nothing is known.
    fn remedy(&self) -> Option<String>;
}

impl Fault for Error {
    fn remedy(&self) -> Option<String> {
        self.hint_text().map(str::to_owned)
    }
}

impl Fault for crate::store::Error {
    fn remedy(&self) -> Option<String> {
        self.hint_text().map(str::to_owned)
    }
}

impl Fault for crate::registry::Error {
    fn remedy(&self) -> Option<String> {
        self.hint()
    }
}

impl Fault for serde_json::Error {
    fn remedy(&self) -> Option<String> {
        None
    }
}

impl Fault for FaultText<'_> {
    fn remedy(&self) -> Option<String> {
        self.1.map(str::to_owned)
    }
}

/// A fault in words, with or without a remedy.
pub struct FaultText<'a>(pub &'a str, pub Option<&'a str>);

impl std::fmt::Display for FaultText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// A fault of the cache that ends a run, with its hint.
pub fn cache_error(what: &str, why: &impl Fault) -> Error {
    Error::new(Kind::Cache, format!("{what}: {why}")).hint_if(why.remedy())
}

/// A fault of the cache as an error, with its hint.
pub fn cache_fault<F: Fault>(why: F) -> Error {
    Error::new(Kind::Cache, why.to_string()).hint_if(why.remedy())
}

/// A fault in a warning: with its hint in brackets.
pub fn with_remedy(text: String, remedy: Option<&str>) -> String {
    match remedy {
        Some(remedy) => format!("{text} ({remedy})"),
        None => text,
    }
}
