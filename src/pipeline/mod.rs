//! The order of things, and nothing else: sole owner of what comes after what.

mod build;
mod call;
mod outputs;
mod promote;
mod push;
mod release;
mod saving;

pub use build::{Built, build};
pub use promote::promote;
pub use push::push;

use crate::engine::{EngineInfo, StoreKind};
use crate::report::{EngineReport, Store, Transport};

/// What the report says of the daemon. Images go out of it through the loopback registry.
fn engine_report(info: &EngineInfo, pushes: bool) -> EngineReport {
    EngineReport {
        version: info.version.clone(),
        store: if info.store == StoreKind::Containerd { Store::Containerd } else { Store::Graphdriver },
        transport: if pushes { Transport::Registry } else { Transport::None },
    }
}
