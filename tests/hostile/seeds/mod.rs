//! The seeds that a program writes. Those that fuzzers found are only in `fuzz/seeds`.

mod files;
mod graphs;
mod http;
mod texts;

/// A target, the name of a file, and its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// Returns all seeds.
pub fn all() -> Vec<Seed> {
    [files::seeds(), graphs::seeds(), http::seeds(), texts::seeds()].concat()
}

fn seed(target: &'static str, name: &str, bytes: impl Into<Vec<u8>>) -> Seed {
    (target, name.to_owned(), bytes.into())
}
