//! The configuration of the daemon: what of the stock daemon's a build could notice, and what hakobi needs.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::protocol::Paths;

/// The options of the stock daemon that the daemon shares. Names, networks, logs and limits of containers that are not builds are left
/// out, and all that two daemons must not share.
const SHARED: [&str; 24] = [
    "allow-nondistributable-artifacts",
    "cgroup-parent",
    "default-cgroupns-mode",
    "default-runtime",
    "default-shm-size",
    "default-ulimits",
    "dns",
    "dns-opts",
    "dns-search",
    "exec-opts",
    "experimental",
    "features",
    "insecure-registries",
    "max-concurrent-downloads",
    "max-download-attempts",
    "mtu",
    "proxies",
    "registry-mirrors",
    "runtimes",
    "seccomp-profile",
    "selinux-enabled",
    "storage-driver",
    "storage-opts",
    "userns-remap",
];

/// The directory of the daemon's sockets and of its containers' state, in memory and visible to nobody else. It is short, because the
/// path of a socket may have 107 bytes.
pub const EXEC_ROOT: &str = "/run/hakobi/exec";

/// Returns the options of the stock daemon's configuration that the daemon shares.
#[must_use]
pub fn shared(stock: &Map<String, Value>) -> Map<String, Value> {
    stock.iter().filter(|(name, _)| SHARED.contains(&&***name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Returns the options that decide what the daemon's data is like: a disk of other ones is of no use.
#[must_use]
pub fn of_data(shared: &Map<String, Value>) -> Value {
    let deciding = ["features", "storage-driver", "storage-opts", "userns-remap"];
    deciding
        .into_iter()
        .map(|name| (name.to_owned(), shared.get(name).cloned().unwrap_or_default()))
        .collect::<Map<_, _>>()
        .into()
}

/// Returns whether the stock daemon gives its containers a network.
#[must_use]
pub fn has_network(stock: &Map<String, Value>) -> bool {
    stock.get("bridge").and_then(Value::as_str) != Some("none")
}

/// Returns the whole configuration of a daemon of this major version with these files and this bridge.
#[must_use]
pub fn whole(shared: &Map<String, Value>, major: u32, work: &Path, bridge: &str) -> Value {
    let paths = Paths(work);
    let mut all = shared.clone();
    let root = paths.mounted();
    let own = json!({
        "data-root": root.join("docker"),
        "exec-root": EXEC_ROOT,
        "pidfile": work.join("docker.pid"),
        "hosts": [format!("unix://{}", paths.socket().display())],
        "bridge": bridge,
        // The rules of the firewall are the stock daemon's, or nobody's: hakobi adds those of its bridge itself.
        "iptables": false,
        "ip6tables": false,
        "ip-masq": false,
        "ip-forward": bridge != "none",
        // It would begin a second after the daemon's start, and a command that begins just then gets a new cache mount, because it
        // has the old one in use. hakobi shrinks the cache itself.
        "builder": { "gc": { "enabled": false } },
        "shutdown-timeout": 5,
    });
    all.extend(own.as_object().cloned().unwrap_or_default());
    if major < 23 {
        // The daemon's ID, which must go along with its data. Later versions keep it there by themselves.
        all.insert("deprecated-key-path".to_owned(), json!(root.join("key.json")));
    }
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn what_a_build_notices_is_shared_and_nothing_else() {
        let stock = object(json!({
            "data-root": "/mnt/docker", "hosts": ["fd://"], "live-restore": true, "log-driver": "journald", "bip": "10.1.0.1/16",
            "registry-mirrors": ["https://mirror.example"], "dns": ["10.0.0.2"], "features": {"containerd-snapshotter": true},
        }));
        let shared = shared(&stock);
        assert_eq!(shared.keys().collect::<Vec<_>>(), ["dns", "features", "registry-mirrors"]);
        let whole = whole(&shared, 28, Path::new("/tmp/work"), "hakobi0");
        assert_eq!(whole["data-root"], "/tmp/work/data/docker");
        assert_eq!(whole["hosts"], json!(["unix:///tmp/work/docker.sock"]));
        assert_eq!((&whole["bridge"], &whole["iptables"]), (&json!("hakobi0"), &json!(false)));
        assert_eq!(whole["dns"], json!(["10.0.0.2"]));
        assert!(whole.get("deprecated-key-path").is_none());
    }

    #[test]
    fn an_old_daemon_has_its_id_beside_its_data() {
        let whole = whole(&Map::new(), 20, Path::new("/w"), "none");
        assert_eq!((&whole["deprecated-key-path"], &whole["ip-forward"]), (&json!("/w/data/key.json"), &json!(false)));
    }

    #[test]
    fn data_differs_by_its_store_and_not_by_a_mirror() {
        let of = |value: Value| of_data(&shared(&object(value)));
        assert_eq!(of(json!({})), of(json!({"registry-mirrors": ["https://m"]})));
        assert_ne!(of(json!({})), of(json!({"features": {"containerd-snapshotter": true}})));
        assert!(has_network(&Map::new()) && !has_network(&object(json!({"bridge": "none"}))));
    }
}
