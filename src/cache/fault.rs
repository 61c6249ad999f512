//! The texts of cache faults, with advice for the user.

use crate::error::{Error, Kind};

/// A fault of the cache, with advice for the user. Errors of all rooms implement it.
pub trait Fault: std::fmt::Display {
    /// Returns the advice, or `None` if there is none.
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

/// A fault as text, with or without advice.
pub struct FaultText<'a>(pub &'a str, pub Option<&'a str>);

impl std::fmt::Display for FaultText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// Returns a fault of the cache as an error that ends the run, with its hint.
pub fn cache_error(what: &str, why: &impl Fault) -> Error {
    Error::new(Kind::Cache, format!("{what}: {why}")).hint_if(why.remedy())
}

/// Returns a fault of the cache as an error, with its hint.
pub fn cache_fault<F: Fault>(why: F) -> Error {
    Error::new(Kind::Cache, why.to_string()).hint_if(why.remedy())
}

/// Returns the text of a warning, with the advice in brackets.
pub fn with_remedy(text: String, remedy: Option<&str>) -> String {
    match remedy {
        Some(remedy) => format!("{text} ({remedy})"),
        None => text,
    }
}
