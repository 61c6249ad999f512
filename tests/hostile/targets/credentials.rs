//! Docker's `config.json`, and names of registries.

use hakobi::event::Events;
use hakobi::registry::{EcrHost, Registries, canonical_host};
use hakobi::settings::RegistrySettings;

/// Reads the input as `config.json`. Helpers that it names do not exist.
pub fn credentials(input: &[u8]) {
    thread_local! {
        static DIRECTORY: tempfile::TempDir = tempfile::tempdir().unwrap();
    }
    let directory = DIRECTORY.with(|directory| directory.path().to_owned());
    std::fs::write(directory.join("config.json"), input).unwrap();
    let settings = RegistrySettings { docker_config: Some(directory), ..RegistrySettings::default() };
    let registries = Registries::new(&settings, Events::none());
    super::run(async {
        for host in ["docker.io", "ghcr.io", "registry.example.com:5000"] {
            if let Err(error) = registries.docker_auth(host).await {
                let _ = (error.to_string(), error.hint());
            }
        }
    });
    if let Ok(text) = std::str::from_utf8(input) {
        let host = canonical_host(text);
        let _ = (EcrHost::parse(&host), host.is_loopback(), host.name());
    }
}
