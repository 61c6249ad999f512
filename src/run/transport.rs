//! Finds out whether the daemon can reach this host, by asking it to connect.

use std::time::Duration;

use crate::engine::{Docker, EngineInfo, StoreKind};
use crate::error::{Error, Result};
use crate::local_registry::Address;
use crate::save::Exit;
use crate::settings::Transport;

/// How long a daemon may take to connect. On another machine, the daemon's own 127.0.0.1 refuses the connection at once.
const PROBE: Duration = Duration::from_secs(10);

/// How layers move to and from this daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerTransport {
    /// Through the loopback registry.
    Registry,
    /// Into the daemon through the session, out of it as archives.
    Archive,
}

impl LayerTransport {
    /// Returns the requested transport, or one that works with this daemon.
    ///
    /// # Errors
    /// If hakobi cannot listen on the loopback address.
    pub async fn choose(wanted: Transport, docker: &Docker) -> Result<Self> {
        let transport = match wanted {
            Transport::Registry => Self::Registry,
            Transport::Archive => Self::Archive,
            Transport::Auto => match reaches(docker).await? {
                true => Self::Registry,
                false => Self::Archive,
            },
        };
        tracing::info!(?wanted, ?transport, "chose how layers move to and from the daemon");
        Ok(transport)
    }

    /// Returns how a built image leaves the daemon. If the daemon must keep the image too, the image goes into the daemon first.
    pub fn exit(self, info: &EngineInfo, load: bool) -> Exit {
        match self {
            Self::Archive => Exit::Saved,
            Self::Registry if info.store == StoreKind::Containerd && !load => Exit::Straight,
            Self::Registry => Exit::Pushed,
        }
    }
}

/// Returns whether the daemon connects when it must look up an image of hakobi's.
///
/// # Errors
/// If hakobi cannot listen on the loopback address.
async fn reaches(docker: &Docker) -> Result<bool> {
    let address = Address::bind().await.map_err(|error| Error::push("failed to listen on 127.0.0.1").because(&error))?;
    let name = address.repository("probe").tag("image");
    let endpoint = address.serve(Vec::new(), None, std::path::PathBuf::new());
    let _ = tokio::time::timeout(PROBE, docker.ask_registry(&name)).await;
    Ok(endpoint.was_reached())
}
