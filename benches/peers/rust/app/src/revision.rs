//! The function that the benchmark edits.

pub fn revision() -> &'static str {
    "7 unedited"
}
