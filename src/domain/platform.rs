//! Platforms as containerd writes them: `os/architecture[/variant]`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The operating system and processor of an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`, `windows`, …
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v7`, `v8`, …; empty without a variant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// The error for a text that is no platform.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("invalid platform `{0}`: expected os/architecture or os/architecture/variant, for example linux/arm64")]
pub struct InvalidPlatform(String);

impl FromStr for Platform {
    type Err = InvalidPlatform;

    /// Accepts the short names that containerd's `platforms.Parse` accepts (`arm64`, `linux/x86_64`) in their usual forms. Drops
    /// the version in `windows(10.0.20348.1006)/amd64`, like buildx.
    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let lower = text.to_ascii_lowercase();
        let mut parts: Vec<&str> = lower.split('/').collect();
        let versioned = parts[0].strip_suffix(')').and_then(|os| os.split_once('(')).filter(|_| parts.len() > 1);
        if let Some((os, _)) = versioned {
            parts[0] = os;
        }
        let fits = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
        if !parts.iter().chain(versioned.iter().map(|(_, version)| version)).all(fits) {
            return Err(InvalidPlatform(text.to_owned()));
        }
        let (os, architecture, variant) = match parts[..] {
            ["linux" | "windows" | "darwin" | "freebsd"] => return Err(InvalidPlatform(text.to_owned())),
            [architecture] => ("linux", architecture, ""),
            [os, architecture] => (os, architecture, ""),
            [os, architecture, variant] => (os, architecture, variant),
            _ => return Err(InvalidPlatform(text.to_owned())),
        };
        let (architecture, variant) = normalize(architecture, variant);
        Ok(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.to_owned() })
    }
}

/// Returns the usual names, like containerd's `platforms.normalizeArch`.
fn normalize<'a>(architecture: &'a str, variant: &'a str) -> (&'a str, &'a str) {
    match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        ("i386", _) => ("386", ""),
        other => other,
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_spellings_come_to_one() {
        for (text, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("windows(10.0.20348.1006)/amd64", "windows/amd64"),
            ("Windows(10)/arm64/v8", "windows/arm64"),
        ] {
            assert_eq!(text.parse::<Platform>().map(|p| p.to_string()), Ok(normal.to_owned()), "{text}");
        }
        for text in [
            "",
            "linux",
            "linux/",
            "a/b/c/d",
            "linux/amd 64",
            "windows(1)",
            "windows()/amd64",
            "windows(1/amd64",
            "(1)/amd64",
            "a/b(1)",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
