//! Whether the daemon can reach this host: found out by asking it to.

use std::time::Duration;

use crate::engine::{Docker, EngineInfo, StoreKind};
use crate::error::{Error, Result};
use crate::local_registry::Address;
use crate::save::Exit;
use crate::settings::Transport;

/// How long a daemon may take to show up. One on another machine is refused at once by its own 127.0.0.1.
const PROBE: Duration = Duration::from_secs(10);

/// How layers go to and from this daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerTransport {
    /// Through the loopback registry.
    Registry,
    /// Into it through the session, out of it as archives.
    Archive,
}

impl LayerTransport {
    /// The way that was asked for, or the one that this daemon can go.
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

    /// How a built image comes out. One that is wanted in the daemon too goes by there.
    pub fn exit(self, info: &EngineInfo, load: bool) -> Exit {
        match self {
            Self::Archive => Exit::Saved,
            Self::Registry if info.store == StoreKind::Containerd && !load => Exit::Straight,
            Self::Registry => Exit::Pushed,
        }
    }
}

/// Whether the daemon comes by when it is asked to look at an image of ours.
async fn reaches(docker: &Docker) -> Result<bool> {
    let address = Address::bind().await.map_err(|error| Error::push("failed to listen on 127.0.0.1").because(&error))?;
    let name = address.repository("probe").tag("image");
    let endpoint = address.serve(Vec::new(), None, std::path::PathBuf::new());
    let _ = tokio::time::timeout(PROBE, docker.ask_registry(&name)).await;
    Ok(endpoint.was_reached())
}
