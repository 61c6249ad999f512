//! A cache that BuildKit imports or exports.

use std::collections::BTreeMap;

/// An import or export of cache, in BuildKit's words.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CacheOption {
    /// `registry`, `inline`, …
    #[serde(rename = "Type")]
    pub kind: String,
    /// `ref`, `mode`, …
    #[serde(rename = "Attrs")]
    pub attributes: BTreeMap<String, String>,
}
