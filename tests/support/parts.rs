//! The real engines and registries that `tests/parts/up` starts. Their addresses are in the file that it writes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Returns the value of one part. If the part is missing, the test fails. It never skips.
pub fn part(name: &str) -> String {
    static PARTS: OnceLock<HashMap<String, String>> = OnceLock::new();
    let parts = PARTS.get_or_init(|| {
        let path = file();
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
            panic!("the real parts are not up: {} cannot be read ({error}): run tests/parts/up", path.display())
        });
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("export ").unwrap_or(line.trim()).split_once('='))
            .map(|(name, value)| (name.to_owned(), value.trim_matches(['\'', '"']).to_owned()))
            .collect()
    });
    parts.get(name).cloned().unwrap_or_else(|| panic!("{} has no {name}: run tests/parts/up", file().display()))
}

fn file() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = variable("HAKOBI_PARTS_ENV") {
        return file;
    }
    let parts = variable("HAKOBI_PARTS").unwrap_or_else(|| {
        let cache = variable("XDG_CACHE_HOME").unwrap_or_else(|| variable("HOME").unwrap_or_default().join(".cache"));
        cache.join("hakobi-parts")
    });
    parts.join("run/parts.env")
}

/// Returns a repository path that no other test and no other run uses.
pub fn unique(name: &str) -> String {
    format!("test/{name}-{:012x}", rand::random::<u64>() >> 16)
}
