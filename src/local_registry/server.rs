//! The listener, the repositories behind it, and the receiver of pushes.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::cache_repository::CacheRepository;
use super::connections;
use super::http::Handler;
use super::pull::{Repositories, Served, Transferred};
use super::receiver::Receiver;
use crate::domain::{Digest, ImageRef, RegistryHost, Repository};
use crate::redact;

/// The start of the secret path in the repositories of every endpoint.
const MARK: &str = "hakobi-";

/// The host in the names of images that are loaded as archives: no registry can have this name (RFC 2606).
pub const NOWHERE: &str = "hakobi.invalid";

/// The text that outputs show instead of an endpoint's address and secret path.
const SHOWN: &str = "hakobi";

/// A bound address that nothing answers yet: repositories need it for their names.
pub struct Address {
    listener: TcpListener,
    address: SocketAddr,
    secret_path: String,
}

/// The endpoint while it listens.
pub struct Endpoint {
    address: SocketAddr,
    secret_path: String,
    served: Served,
    reached: Arc<AtomicBool>,
    /// Why a blob could not be stored.
    full: watch::Sender<Option<String>>,
    task: JoinHandle<()>,
}

impl Address {
    /// Binds a free port of 127.0.0.1, and makes a secret path.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let secret_path = format!("{MARK}{:032x}", rand::random::<u128>());
        redact::hide(&address.to_string(), SHOWN);
        redact::hide(&secret_path, SHOWN);
        redact::hide(&format!("{address}/{secret_path}"), SHOWN);
        Ok(Self { listener, address, secret_path })
    }

    /// Returns the daemon's name of a repository.
    #[must_use]
    pub fn repository(&self, name: &str) -> Repository {
        repository(self.address, &self.secret_path, name)
    }

    /// Serves the cache repositories, and passes pushes to the receiver, if there is one. Arriving blobs are stored in `directory`.
    #[must_use]
    pub fn serve(self, repositories: Vec<CacheRepository>, receiver: Option<Arc<dyn Receiver>>, directory: PathBuf) -> Endpoint {
        let Self { listener, address, secret_path } = self;
        let served = Served::default();
        let reached = Arc::new(AtomicBool::new(false));
        let repositories = Repositories::new(&secret_path, repositories, served.clone());
        let full = watch::Sender::default();
        let handler = Handler::new(secret_path.clone(), repositories, receiver, directory, Arc::clone(&reached), full.clone());
        let handler = Arc::new(handler);
        let task = tokio::spawn(connections::accept(listener, handler, connections::STRANGER));
        Endpoint { address, secret_path, served, reached, full, task }
    }
}

/// Returns whether a repository's name is hakobi's own: `127.0.0.1:PORT/hakobi-HEX/…` of an endpoint, or `hakobi.invalid/HEX` of a
/// run that loads archives, with 32 digits. No user's image has such a name.
#[must_use]
pub fn is_own_name(repository: &Repository) -> bool {
    let is_word =
        |secret_path: &str| secret_path.len() == 32 && secret_path.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let first = repository.path.split('/').next().unwrap_or_default();
    let host = repository.host.as_str();
    let port = host.strip_prefix("127.0.0.1:").and_then(|port| port.parse::<u16>().ok());
    match port {
        Some(_) => repository.path.contains('/') && first.strip_prefix(MARK).is_some_and(is_word),
        None => host == NOWHERE && first == repository.path && is_word(first),
    }
}

fn repository(address: SocketAddr, secret_path: &str, name: &str) -> Repository {
    Repository { host: RegistryHost::new(address.to_string()), path: format!("{secret_path}/{name}") }
}

impl Endpoint {
    /// Starts an endpoint that only receives. Arriving blobs are stored in `directory`.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start(receiver: Arc<dyn Receiver>, directory: PathBuf) -> io::Result<Self> {
        Ok(Address::bind().await?.serve(Vec::new(), Some(receiver), directory))
    }

    /// Returns whether a client that knows the secret path has sent a request.
    #[must_use]
    pub fn was_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    /// Returns the counter of served bytes, to count bytes that leave another way.
    #[must_use]
    pub fn tally(&self) -> Served {
        self.served.clone()
    }

    /// Returns the blobs that were pulled from here, with their served bytes.
    #[must_use]
    pub fn served(&self) -> BTreeMap<Digest, Transferred> {
        self.served.blobs()
    }

    /// Returns the secret path in the names of all its repositories. It identifies the daemon's names of this run.
    #[must_use]
    pub fn secret_path(&self) -> &str {
        &self.secret_path
    }

    /// Waits until there is no room for a blob, and returns why. Never returns if there is room.
    pub async fn out_of_space(&self) -> String {
        let mut full = self.full.subscribe();
        let why = full.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_default()
    }

    /// Returns the reference under which the daemon must push an image for the receiver.
    #[must_use]
    pub fn reference(&self, name: &str) -> ImageRef {
        repository(self.address, &self.secret_path, name).tag("image")
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_its_own_are_recognised() {
        let secret_path = "0123456789abcdef0123456789abcdef";
        for (name, own) in [
            (format!("127.0.0.1:40000/{MARK}{secret_path}/image:image"), true),
            (format!("127.0.0.1:40000/{MARK}{secret_path}/0/team/app:latest"), true),
            (format!("{NOWHERE}/{secret_path}:abc"), true),
            (format!("127.0.0.1:40000/{MARK}{secret_path}:image"), false),
            (format!("127.0.0.1:40000/{secret_path}/image:image"), false),
            (format!("127.0.0.1:40000/{MARK}{secret_path}0/image:image"), false),
            (format!("127.0.0.1:40000/team/{MARK}{secret_path}/image:image"), false),
            (format!("registry.example.com:5000/{MARK}{secret_path}/image:image"), false),
            (format!("{NOWHERE}/{secret_path}/more:abc"), false),
            ("127.0.0.1:5000/hakobi-app/image:latest".to_owned(), false),
            ("hakobi-app:latest".to_owned(), false),
        ] {
            let reference: ImageRef = name.parse().unwrap();
            assert_eq!(is_own_name(&reference.repository), own, "{name}");
        }
    }
}
