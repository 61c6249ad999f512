//! `hakobi doctor`: tries everything that a run needs, and says how to repair what does not work.

use std::fmt::{Display, Write as _};
use std::time::Duration;

mod cache;
mod registry_cache;
mod rules;

use super::lazy::stock_configuration;
use super::upkeep::Answer;
use crate::domain::ImageRef;
use crate::engine::StoreKind;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::lazy_daemon::{configuration, machine};
use crate::push::preflight;
use crate::registry::Registries;
use crate::run::daemon::Daemon;
use crate::run::transport::LayerTransport;
use crate::settings::{DoctorSettings, IfTagExists, Proxy, PushSettings, Settings};

/// How long one check may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(10);

/// Least free room for temporary layers, in bytes: the layers of several transfers.
const ROOM: u64 = 2 << 30;

/// The result of one check.
enum Found {
    Right(String),
    /// It works, but should be changed.
    Doubtful(String, String),
    /// It does not work. The last field is the kind of error that ends a build.
    Wrong(String, String, Kind),
    NotTried(String),
}

impl Found {
    fn wrong(error: &Error, mend: &str) -> Self {
        let cause = error.causes().first().map(|cause| format!(": {cause}")).unwrap_or_default();
        let mend = error.hint_text().unwrap_or(mend);
        Self::Wrong(format!("{}{cause}", error.message()), mend.to_owned(), error.kind())
    }
}

/// Runs all checks.
///
/// # Errors
/// None for failed checks: the answer contains these, with the exit code that a build would have.
pub async fn doctor(settings: &Settings, doctor: &DoctorSettings, events: &Events) -> Result<Answer> {
    let registries = Registries::new(&settings.registries, events.clone());
    let mut all: Vec<(&str, Found)> = vec![("ci", ci(doctor))];
    all.extend(daemon(settings).await);
    all.push(("lazy", lazy_daemon(doctor).await));
    if doctor.tags.is_empty() {
        all.push(("registry", Found::NotTried("no image is named with -t".to_owned())));
    }
    for tag in &doctor.tags {
        all.push(("registry", registry(&registries, tag).await));
    }
    match &doctor.store {
        Some(cache) => all.extend(cache::tried(&registries, cache).await),
        None => all.push(("cache", Found::NotTried("--cache-mode is off".to_owned()))),
    }
    all.push(("room", room()));
    for proxy in &doctor.proxies {
        all.push(("proxy", self::proxy(proxy).await));
    }
    let exit_code = all.iter().find_map(|(_, found)| match found {
        Found::Wrong(.., kind) => Some(kind.exit_code()),
        _ => None,
    });
    Ok(Answer { text: text(&all), exit_code: exit_code.unwrap_or(0) })
}

fn text(all: &[(&str, Found)]) -> String {
    let mut out = String::new();
    for (what, found) in all {
        let (mark, words, mend) = match found {
            Found::Right(words) => ("ok", words, None),
            Found::Doubtful(words, mend) => ("hm", words, Some(mend)),
            Found::Wrong(words, mend, _) => ("WRONG", words, Some(mend)),
            Found::NotTried(words) => ("-", words, None),
        };
        // Writing into a String does not fail.
        let _ = writeln!(out, "{mark:<6}{what:<11}{words}");
        if let Some(mend) = mend {
            let _ = writeln!(out, "{:17}{mend}", "");
        }
    }
    out
}

fn ci(doctor: &DoctorSettings) -> Found {
    let commit = doctor.ci.commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
    let scopes = doctor.store.as_ref().map(|cache| {
        let read = if cache.fallbacks.is_empty() { String::new() } else { format!(", reads {}", cache.fallbacks.join(", ")) };
        format!(", cache scope {}{read}", cache.scope)
    });
    Found::Right(format!("{}{commit}{}", doctor.ci.provider, scopes.unwrap_or_default()))
}

async fn daemon(settings: &Settings) -> Vec<(&'static str, Found)> {
    let daemon = match Daemon::connect(&settings.daemon).await {
        Ok(daemon) => daemon,
        Err(error) => {
            let mend = "start a daemon (in CodeBuild, enable privileged mode); without one, hakobi pushes only unchanged and appended images";
            return vec![("daemon", Found::wrong(&error, mend))];
        }
    };
    let store = match daemon.info.store {
        StoreKind::GraphDriver => "overlay2 or similar",
        StoreKind::Containerd => "containerd image store",
    };
    let told = format!("Docker {}, {store}, {}", daemon.info.version, daemon.info.platform);
    let way = match LayerTransport::choose(settings.transport, &daemon.docker).await {
        Ok(LayerTransport::Registry) => Found::Right("through a registry on 127.0.0.1".to_owned()),
        Ok(LayerTransport::Archive) => Found::Doubtful(
            "as archives: the daemon cannot reach this host".to_owned(),
            "let the daemon share this host's 127.0.0.1 to move layers faster (in a container: --network host)".to_owned(),
        ),
        Err(error) => Found::wrong(&error, "use --transport archive, which needs no registry on 127.0.0.1"),
    };
    vec![("daemon", Found::Right(told)), ("transport", way)]
}

/// Says whether `--daemon lazy` is possible here. Most machines need it not.
async fn lazy_daemon(doctor: &DoctorSettings) -> Found {
    let cannot = |why: &dyn Display| Found::NotTried(format!("--daemon lazy is not possible: {why}"));
    let stock = match stock_configuration(&doctor.daemon.configuration).await {
        Ok(stock) => stock,
        Err(why) => return cannot(&why),
    };
    let has_network = configuration::has_network(&stock);
    match tokio::task::spawn_blocking(move || machine::look(has_network)).await {
        Ok(Ok(docker)) => Found::Right(format!("--daemon lazy is possible with Docker {}", docker.version)),
        Ok(Err(why)) => cannot(&why),
        Err(error) => cannot(&error),
    }
}

/// Checks the credentials and the permission to push. It creates nothing and looks up no tag.
async fn registry(registries: &Registries, tag: &ImageRef) -> Found {
    let settings = PushSettings { if_tag_exists: IfTagExists::Overwrite, ..PushSettings::default() };
    let tried = tokio::time::timeout(PATIENCE, preflight(registries, std::slice::from_ref(tag), &settings)).await;
    match tried {
        Ok(Ok(_)) => Found::Right(format!("{} accepts pushes", tag.repository)),
        Ok(Err(error)) => Found::wrong(&error, "check the credentials alone with `hakobi login HOST`"),
        Err(_) => Found::Wrong(
            format!("no answer from {}", tag.repository.host),
            "check the network route, or set HTTPS_PROXY if a proxy is required".to_owned(),
            Kind::Push,
        ),
    }
}

/// Checks that something listens at a proxy's address. The other checks show what the proxy allows.
async fn proxy(proxy: &Proxy) -> Found {
    let Proxy { name, host, port } = proxy;
    match tokio::time::timeout(CONNECT, tokio::net::TcpStream::connect((&**host, *port))).await {
        Ok(Ok(_)) => {
            Found::Right(format!("{name}: {host}:{port} (never used for 127.0.0.1, through which layers go to the daemon)"))
        }
        Ok(Err(error)) => Found::Wrong(
            format!("{name}: failed to reach {host}:{port}: {error}"),
            format!("set {name} to a proxy that exists, or unset it"),
            Kind::Push,
        ),
        Err(_) => Found::Wrong(
            format!("{name}: no answer from {host}:{port}"),
            format!("set {name} to a proxy that exists, or unset it"),
            Kind::Push,
        ),
    }
}

/// Checks the room in the directory for temporary layers.
fn room() -> Found {
    let directory = match crate::transfer::temp_dir(Kind::Usage) {
        Ok(directory) => directory,
        Err(error) => return Found::wrong(&error, "set TMPDIR to another directory"),
    };
    let shown = directory.path().ancestors().nth(2).unwrap_or(directory.path()).display().to_string();
    match rustix::fs::statvfs(directory.path()) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let told = format!("{shown} has {} MB free for temporary layers", free >> 20);
            match free < ROOM {
                true => Found::Doubtful(
                    told,
                    "set TMPDIR to a directory with more space: it may hold several large layers at once".to_owned(),
                ),
                false => Found::Right(told),
            }
        }
        Err(error) => Found::NotTried(format!("{shown}: {error}")),
    }
}
