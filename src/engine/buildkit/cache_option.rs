//! A cache that BuildKit imports or exports.

use std::collections::BTreeMap;

/// A cache import or export, in BuildKit's terms.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CacheOption {
    /// `registry`, `inline`, …
    #[serde(rename = "Type")]
    pub kind: String,
    /// `ref`, `mode`, …
    #[serde(rename = "Attrs")]
    pub attributes: BTreeMap<String, String>,
}
