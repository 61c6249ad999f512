//! The cache mounts of a run: their part of the report, and their line in the summary.

use serde::Serialize;

use super::seconds::milliseconds_if_known;
use super::text::{bytes_in_words, title};

/// A cache mount of a command that ran. In the answer of `hakobi plan`: of a command that would run.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct MountReport {
    /// The ID in the Dockerfile: by default the path in the container.
    pub id: String,
    /// The bytes of the files that hakobi brought in. Null if it brought nothing in.
    pub brought_in: Option<u64>,
    /// The bytes that hakobi uploaded to save the mount. Null if it did not save it.
    pub saved: Option<u64>,
    /// The number of its files in the cache.
    pub files: u64,
    /// Why hakobi brought nothing in. Empty if it did.
    pub reason: String,
    /// The times.
    pub seconds: MountSeconds,
}

/// How long work on a mount took, in seconds. Null if hakobi did not do it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct MountSeconds {
    /// To bring it in.
    #[serde(serialize_with = "milliseconds_if_known")]
    pub bring: Option<f64>,
    /// To save it.
    #[serde(serialize_with = "milliseconds_if_known")]
    pub save: Option<f64>,
}

impl MountReport {
    /// Returns what `hakobi plan` says of a mount.
    #[must_use]
    pub fn planned(&self) -> String {
        let Some(bytes) = self.brought_in else { return format!("cache mount {}: not brought in: {}", self.id, self.reason) };
        let last = self.seconds.bring.map(|seconds| format!(", which took {seconds:.1}s the last time"));
        format!("cache mount {}: brings in {}{}", self.id, bytes_in_words(bytes), last.unwrap_or_default())
    }
}

/// Returns what became of all mounts. Returns `None` if there are none.
pub(super) fn mounts_line(mounts: &[MountReport]) -> Option<String> {
    let mut clauses: Vec<String> = Vec::new();
    clauses.extend(total("brought in", mounts.iter().map(|mount| (mount.brought_in, mount.seconds.bring))));
    let mut others = mounts.iter().filter(|mount| mount.brought_in.is_none());
    if let Some(first) = others.next() {
        let more = match others.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        clauses.push(format!("{}{more} not brought in ({})", title(&first.id), title(&first.reason)));
    }
    clauses.extend(total("saved", mounts.iter().map(|mount| (mount.saved, mount.seconds.save))));
    (!clauses.is_empty()).then(|| format!("cache mounts: {}", clauses.join(", ")))
}

/// Returns what was done, with all bytes and seconds. Returns `None` if nothing was.
fn total(done: &str, moved: impl Iterator<Item = (Option<u64>, Option<f64>)>) -> Option<String> {
    let known = moved.filter_map(|(bytes, seconds)| Some((bytes?, seconds?)));
    let (bytes, seconds) = known.reduce(|all, one| (all.0 + one.0, all.1 + one.1))?;
    Some(format!("{done} {} in {seconds:.1}s", bytes_in_words(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(id: &str, brought_in: Option<u64>, saved: Option<u64>) -> MountReport {
        let reason = if brought_in.is_none() { "no build has saved it" } else { "" }.to_owned();
        let seconds = MountSeconds { bring: brought_in.map(|_| 1.5), save: saved.map(|_| 0.6) };
        MountReport { id: id.to_owned(), brought_in, saved, files: 1, reason, seconds }
    }

    #[test]
    fn one_line_for_all_mounts() {
        let line = |mounts: &[MountReport]| mounts_line(mounts).unwrap_or_default();
        assert_eq!(line(&[]), "");
        assert_eq!(
            line(&[mount("/a", Some(400_000_000), Some(5_000_000)), mount("/b", Some(67_000_000), Some(0))]),
            "cache mounts: brought in 467.0 MB in 3.0s, saved 5.0 MB in 1.2s"
        );
        assert_eq!(
            line(&[mount("/a", None, Some(5_000_000))]),
            "cache mounts: /a not brought in (no build has saved it), saved 5.0 MB in 0.6s"
        );
        assert_eq!(
            line(&[mount("/a", Some(120), None), mount("/b", None, None), mount("/c", None, None)]),
            "cache mounts: brought in 120 B in 1.5s, /b and 1 more not brought in (no build has saved it)"
        );
    }

    #[test]
    fn a_plan_says_what_comes() {
        assert_eq!(mount("/a", Some(120), None).planned(), "cache mount /a: brings in 120 B, which took 1.5s the last time");
        assert_eq!(mount("/a", None, None).planned(), "cache mount /a: not brought in: no build has saved it");
    }
}
