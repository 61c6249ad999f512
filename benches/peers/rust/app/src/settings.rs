//! Flags, and the file that they may name.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context;

#[derive(clap::Parser)]
pub struct Flags {
    /// Prints the revision and exits.
    #[arg(long)]
    pub revision: bool,
    #[arg(long, env = "APP_SETTINGS")]
    pub settings: Option<PathBuf>,
}

#[derive(serde::Deserialize)]
#[serde(default)]
pub struct Settings {
    pub listen: SocketAddr,
    pub upstream: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { listen: SocketAddr::from(([127, 0, 0, 1], 8080)), upstream: "http://127.0.0.1:8081".to_owned() }
    }
}

impl Flags {
    /// Returns what the file says, or the defaults without one.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let Some(path) = &self.settings else { return Ok(Settings::default()) };
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("failed to parse {}", path.display()))
    }
}
