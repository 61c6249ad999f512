//! The network of a daemon's containers: a bridge and a subnet of its own, and the rules of the firewall for them.
//!
//! The daemon's own rules would replace those of another daemon on this machine. Each bridge has a number, and whoever has the lock of
//! a number removes first what a killed keeper left under it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use super::command::run;

/// The directory of the locks.
const LOCKS: &str = "/run/hakobi";

/// How many bridges one machine has at most.
const MOST: u8 = 64;

/// The second parts of addresses 10.X.N.0/24 that are tried: far from what networks of clouds usually have.
const SECOND: std::ops::RangeInclusive<u8> = 213..=253;

/// The length of a subnet's prefix.
const PREFIX: u32 = 24;

/// A bridge. Dropping it removes it.
#[derive(Debug)]
pub struct Bridge {
    name: String,
    subnet: Ipv4Addr,
    _lock: File,
}

impl Bridge {
    /// Creates a bridge.
    ///
    /// # Errors
    /// If the machine does not allow it, or lacks `ip` or `iptables`.
    pub fn new() -> io::Result<Self> {
        fs::create_dir_all(LOCKS)?;
        let (number, lock) = free_number(Path::new(LOCKS))?;
        let routes = fs::read_to_string("/proc/net/route")?;
        let name = format!("hakobi{number}");
        // What a killed keeper left: its route would make its own subnet look taken.
        let _ = run("ip", &["link", "del", &name]);
        let subnet =
            free_subnet(number, &routes, &name).ok_or_else(|| io::Error::other("found no free subnet below 10.0.0.0/8"))?;
        let bridge = Self { name, subnet, _lock: lock };
        bridge.remove_rules();
        bridge.set_up()?;
        Ok(bridge)
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn set_up(&self) -> io::Result<()> {
        let address = Ipv4Addr::from(u32::from(self.subnet) + 1);
        run("ip", &["link", "add", &self.name, "type", "bridge"])?;
        run("ip", &["addr", "add", &format!("{address}/{PREFIX}"), "dev", &self.name])?;
        run("ip", &["link", "set", &self.name, "up"])?;
        for rule in self.rules() {
            firewall("-I", &rule)?;
        }
        Ok(())
    }

    /// Removes its rules, however often each is there.
    fn remove_rules(&self) {
        for rule in self.rules() {
            for _ in 0..16 {
                if firewall("-D", &rule).is_err() {
                    break;
                }
            }
        }
    }

    /// Returns the rules, each with its table: containers reach other hosts under the host's address, also where the firewall forwards
    /// nothing else.
    fn rules(&self) -> [(&'static str, Vec<String>); 3] {
        let text = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect();
        let subnet = format!("{}/{PREFIX}", self.subnet);
        [
            ("nat", text(&["POSTROUTING", "-s", &subnet, "!", "-o", &self.name, "-j", "MASQUERADE"])),
            ("filter", text(&["FORWARD", "-i", &self.name, "-j", "ACCEPT"])),
            ("filter", text(&["FORWARD", "-o", &self.name, "-j", "ACCEPT"])),
        ]
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.remove_rules();
        let _ = run("ip", &["link", "del", &self.name]);
    }
}

fn firewall(action: &str, (table, rule): &(&str, Vec<String>)) -> io::Result<()> {
    let mut all = vec!["--wait", "-t", table, action];
    all.extend(rule.iter().map(String::as_str));
    run("iptables", &all).map(drop)
}

/// Locks the first number that no other keeper has.
fn free_number(directory: &Path) -> io::Result<(u8, File)> {
    for number in 0..MOST {
        let path = directory.join(format!("bridge-{number}"));
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        if lock.try_lock().is_ok() {
            return Ok((number, lock));
        }
    }
    Err(io::Error::other(format!("{MOST} daemons of hakobi run on this machine")))
}

/// Returns the first subnet of this number that overlaps no route (/proc/net/route, whose addresses are in the order of the host),
/// but for those of its own bridge.
fn free_subnet(number: u8, routes: &str, own: &str) -> Option<Ipv4Addr> {
    let taken: Vec<(u32, u32)> = routes
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let address = |place: usize| u32::from_str_radix(fields.get(place)?, 16).ok().map(u32::to_be);
            Some((*fields.first()?, address(1)?, address(7)?))
        })
        // The default route overlaps everything, and takes nothing.
        .filter(|(interface, _, mask)| *interface != own && *mask != 0)
        .map(|(_, destination, mask)| (destination, mask))
        .collect();
    let mask = u32::MAX << (32 - PREFIX);
    SECOND.map(|second| Ipv4Addr::new(10, second, number, 0)).find(|subnet| {
        let subnet = u32::from(*subnet);
        taken.iter().all(|(destination, other)| (subnet ^ destination) & mask & other != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    fn route(interface: &str, destination: Ipv4Addr, mask: Ipv4Addr) -> String {
        let hex = |address: Ipv4Addr| format!("{:08X}", u32::from(address).to_be());
        format!("{interface}\t{}\t00000000\t0001\t0\t0\t0\t{}\t0\t0\t0\n", hex(destination), hex(mask))
    }

    #[test]
    fn a_subnet_overlaps_no_route() {
        let default = route("eth0", Ipv4Addr::new(0, 0, 0, 0), Ipv4Addr::new(0, 0, 0, 0));
        let first = Ipv4Addr::new(10, 213, 3, 0);
        assert_eq!(free_subnet(3, &format!("{HEAD}{default}"), "hakobi3"), Some(first));
        let own = route("hakobi3", first, Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(free_subnet(3, &format!("{HEAD}{default}{own}"), "hakobi3"), Some(first));
        let other = route("eth1", Ipv4Addr::new(10, 213, 0, 0), Ipv4Addr::new(255, 255, 0, 0));
        assert_eq!(free_subnet(3, &format!("{HEAD}{other}"), "hakobi3"), Some(Ipv4Addr::new(10, 214, 3, 0)));
        let one = route("eth1", Ipv4Addr::new(10, 213, 3, 7), Ipv4Addr::new(255, 255, 255, 255));
        assert_eq!(free_subnet(3, &format!("{HEAD}{one}"), "hakobi3"), Some(Ipv4Addr::new(10, 214, 3, 0)));
        let all = route("eth1", Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(255, 0, 0, 0));
        assert_eq!(free_subnet(3, &format!("{HEAD}{all}"), "hakobi3"), None);
    }

    #[test]
    fn a_number_is_one_keepers() {
        let directory = tempfile::tempdir().unwrap();
        let one = free_number(directory.path()).unwrap();
        let other = free_number(directory.path()).unwrap();
        assert_eq!((one.0, other.0), (0, 1));
        drop(one);
        assert_eq!(free_number(directory.path()).unwrap().0, 0);
    }
}
