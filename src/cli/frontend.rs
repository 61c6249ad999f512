//! Converts flags to options of the frontend, with BuildKit's names and values (buildx `toSolveOpt`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::given::Given;
use super::words;
use crate::error::{Error, Result};

/// The flags of `docker build` that `--resource` replaced. They mean the same.
const LIMITS: &[&str] = &["memory", "memory-swap", "cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems"];

/// The names of Docker's limits (go-units `ulimitNameMapping`).
const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Returns all options without settings of their own.
pub fn options(given: Given<'_>, warnings: &mut Vec<String>) -> Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    let mut put = |name: &str, value: String| drop(out.insert(name.to_owned(), value));
    // Without --pull, the daemon's own images come first (buildx: `pb.AttrImageResolveModePreferLocal` for the docker driver).
    put("image-resolve-mode", if given.switch("pull") { "pull" } else { "local" }.to_owned());
    let stages = given.list("no-cache-filter");
    match (given.switch("no-cache"), stages.is_empty()) {
        (true, false) => return Err(Error::usage("--no-cache and --no-cache-filter cannot be used together")),
        (true, true) => put("no-cache", String::new()),
        (false, false) => put("no-cache", stages.join(",")),
        (false, true) => {}
    }
    match given.text("network").as_deref() {
        Some(mode @ ("host" | "none")) => put("force-network-mode", mode.to_owned()),
        None | Some("default") => {}
        Some(other) => {
            return Err(Error::usage(format!("invalid --network {other}: BuildKit supports only default, none and host")));
        }
    }
    let hosts = add_hosts(&given.list("add-host"))?;
    if !hosts.is_empty() {
        put("add-hosts", hosts);
    }
    let ulimits = ulimits(&given.list("ulimit"))?;
    if !ulimits.is_empty() {
        put("ulimit", ulimits);
    }
    if let Some(text) = given.text("shm-size") {
        let bytes = words::size("shm-size", &text)?;
        if bytes > 0 {
            put("shm-size", bytes.to_string());
        }
    }
    if let Some(group) = given.text("cgroup-parent") {
        put("cgroup-parent", group);
    }
    let limits = limits(given)?;
    if !limits.is_empty() {
        warnings.push("memory and CPU limits are passed to BuildKit, but older versions ignore them".to_owned());
        out.extend(limits);
    }
    Ok(out)
}

/// Converts `NAME:IP` or `NAME=IP`, separated by commas (pflag's StringSlice), to BuildKit's `NAME=IP,…`. The word host-gateway
/// stays, because only the daemon knows its address.
fn add_hosts(texts: &[String]) -> Result<String> {
    let mut out = Vec::new();
    for text in texts {
        for host in words::fields(text)? {
            let wrong = || {
                Error::usage(format!("invalid --add-host `{host}`: expected NAME:IP"))
                    .hint("use for example db:10.0.0.5, db=::1, or host.docker.internal:host-gateway")
            };
            let (name, ip) = host.split_once('=').or_else(|| host.split_once(':')).ok_or_else(wrong)?;
            let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
            if name.is_empty() || name.contains(':') || (ip != "host-gateway" && ip.parse::<IpAddr>().is_err()) {
                return Err(wrong());
            }
            out.push(format!("{name}={ip}"));
        }
    }
    Ok(out.join(","))
}

/// Converts `NAME=SOFT[:HARD]` to BuildKit's `NAME=SOFT:HARD,…`, sorted by name. The last value with a name overrides the others.
fn ulimits(texts: &[String]) -> Result<String> {
    let mut out = BTreeMap::new();
    for text in texts {
        let wrong = |what: &str| {
            Error::usage(format!("invalid --ulimit `{text}`: {what}"))
                .hint("use NAME=SOFT[:HARD], for example nofile=1024:2048; -1 means no limit")
        };
        let (name, limits) = text.split_once('=').ok_or_else(|| wrong("expected NAME=SOFT[:HARD]"))?;
        if !ULIMITS.contains(&name) {
            return Err(wrong("unknown limit"));
        }
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let number = |text: &str| text.parse::<i64>().map_err(|_| wrong("not a number"));
        let (soft, hard) = (number(soft)?, number(hard)?);
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(wrong("the soft limit is above the hard limit"));
        }
        out.insert(name.to_owned(), format!("{name}={soft}:{hard}"));
    }
    Ok(out.into_values().collect::<Vec<_>>().join(","))
}

/// Converts `--resource NAME=VALUE` and the older flags to options of BuildKit's frontend (buildx `addResourceLimits`).
fn limits(given: Given<'_>) -> Result<BTreeMap<String, String>> {
    let older = LIMITS.iter().filter_map(|name| Some(format!("{name}={}", given.text(name)?)));
    let mut out = BTreeMap::new();
    for text in older.chain(given.list("resource")) {
        let wrong = |what: &str| {
            Error::usage(format!("invalid --resource `{text}`: {what}"))
                .hint(format!("use NAME=VALUE with one of {}", LIMITS.join(", ")))
        };
        let (name, value) = text.split_once('=').ok_or_else(|| wrong("expected NAME=VALUE"))?;
        let (name, value) = (name.trim(), value.trim());
        let number = || value.parse::<i64>().map_err(|_| wrong("not a number"));
        let (option, value) = match name {
            "memory" => ("memory", words::size("resource memory", value)?.to_string()),
            "memory-swap" if value == "-1" => ("memswap", "-1".to_owned()),
            "memory-swap" => ("memswap", words::size("resource memory-swap", value)?.to_string()),
            "cpu-shares" => ("cpushares", number()?.to_string()),
            "cpu-period" => ("cpuperiod", number()?.to_string()),
            "cpu-quota" => ("cpuquota", number()?.to_string()),
            "cpuset-cpus" => ("cpusetcpus", value.to_owned()),
            "cpuset-mems" => ("cpusetmems", value.to_owned()),
            _ => return Err(wrong("unknown limit")),
        };
        // An empty value, zero, and for CPU a negative number mean no limit.
        let none = value.is_empty() || value == "0" || (option != "memswap" && value.starts_with('-'));
        match none {
            true => drop(out.remove(option)),
            false => drop(out.insert(option.to_owned(), value)),
        }
    }
    Ok(out)
}

/// Returns the values of `--allow`, and the entitlement of `--network host`.
pub fn entitlements(given: Given<'_>) -> Result<Vec<String>> {
    let mut out: Vec<String> = Vec::new();
    let mut put = |what: &str| {
        if !out.iter().any(|other| other == what) {
            out.push(what.to_owned());
        }
    };
    for text in given.list("allow") {
        match text.split_once('=').map_or(text.as_str(), |(name, _)| name) {
            "network.host" | "security.insecure" if !text.contains('=') => put(&text),
            "device" => put(&text),
            _ => {
                return Err(Error::usage(format!("invalid --allow {text}: unknown entitlement"))
                    .hint("use network.host, security.insecure, device or device=NAME"));
            }
        }
    }
    if given.text("network").as_deref() == Some("host") {
        put("network.host");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::build_flags;
    use super::*;

    fn with<T>(arguments: &[&str], read: impl FnOnce(Given<'_>) -> T) -> T {
        let matches = build_flags::build().try_get_matches_from([&["build"], arguments].concat()).expect("flags that fit");
        read(Given(&matches))
    }

    fn of(arguments: &[&str]) -> Result<BTreeMap<String, String>> {
        with(arguments, |given| options(given, &mut Vec::new()))
    }

    #[test]
    fn each_flag_has_its_option() {
        for (arguments, name, value) in [
            (&[][..], "image-resolve-mode", "local"),
            (&["--pull"], "image-resolve-mode", "pull"),
            (&["--pull=false"], "image-resolve-mode", "local"),
            (&["--no-cache"], "no-cache", ""),
            (&["--no-cache-filter", "a", "--no-cache-filter", "b,c"], "no-cache", "a,b,c"),
            (&["--network", "host"], "force-network-mode", "host"),
            (&["--network=none"], "force-network-mode", "none"),
            (&["--add-host", "a:1.2.3.4", "--add-host", "b=[::1],c:host-gateway"], "add-hosts", "a=1.2.3.4,b=::1,c=host-gateway"),
            (&["--add-host", "a:::1"], "add-hosts", "a=::1"),
            (&["--ulimit", "nofile=10", "--ulimit", "core=-1", "--ulimit", "nofile=1:2"], "ulimit", "core=-1:-1,nofile=1:2"),
            (&["--shm-size", "64m"], "shm-size", "67108864"),
            (&["--cgroup-parent", "/x"], "cgroup-parent", "/x"),
            (&["-m", "2g"], "memory", "2147483648"),
            (&["--memory-swap", "-1"], "memswap", "-1"),
            (&["-c", "512"], "cpushares", "512"),
            (&["--resource", "cpu-quota=5", "--cpu-quota", "7"], "cpuquota", "5"),
            (&["--cpuset-cpus", "0-3"], "cpusetcpus", "0-3"),
        ] {
            assert_eq!(of(arguments).ok().and_then(|mut found| found.remove(name)).as_deref(), Some(value), "{arguments:?}");
        }
        assert_eq!(of(&["--network", "default", "--cpu-period", "0", "--shm-size", "0"]).map(|found| found.len()).ok(), Some(1));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        for (arguments, word) in [
            (&["--no-cache", "--no-cache-filter", "a"][..], "together"),
            (&["--network", "my-net"], "my-net"),
            (&["--add-host", "a"], "NAME:IP"),
            (&["--add-host", "a:1.2.3"], "NAME:IP"),
            (&["--ulimit", "nofiles=1"], "unknown limit"),
            (&["--ulimit", "nofile=3:2"], "above"),
            (&["--ulimit", "nofile=x"], "number"),
            (&["--shm-size", "big"], "size"),
            (&["--resource", "disk=1"], "unknown limit"),
            (&["--cpu-period", "x"], "number"),
        ] {
            assert!(of(arguments).is_err_and(|error| error.to_string().contains(word)), "{arguments:?}");
        }
    }

    #[test]
    fn permissions() {
        let of = |arguments: &[&str]| with(arguments, entitlements).ok();
        let texts = |list: &[&str]| Some(list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["--network", "host"]), texts(&["network.host"]));
        assert_eq!(
            of(&["--network", "host", "--allow", "network.host", "--allow", "device=nvidia.com/gpu"]),
            texts(&["network.host", "device=nvidia.com/gpu"])
        );
        assert_eq!(of(&["--allow", "everything"]), None);
    }
}
