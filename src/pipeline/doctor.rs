//! `hakobi doctor`: whether what a run needs is there, each thing tried, and how to mend what is not.

use std::fmt::Write as _;
use std::time::Duration;

use super::build::Daemon;
use super::kept;
use super::planning::seconds_now;
use super::transport::Way;
use super::upkeep::Answer;
use crate::domain::ImageRef;
use crate::engine::StoreKind;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::push::preflight;
use crate::registry::Registries;
use crate::settings::{CacheMode, CacheSettings, DoctorSettings, IfTagExists, PushSettings, Settings};
use crate::store::{self, Fault, Name, Store};
use crate::transfer::BytesSource;

/// How far clocks may be apart. AWS refuses requests of a clock that is off by more than a quarter of an hour.
const CLOCKS_APART: u64 = 5 * 60;

/// How long one thing may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Least room for layers on their way, in bytes: those that several transfers hold.
const ROOM: u64 = 2 << 30;

/// What was found of one thing.
enum Found {
    Right(String),
    /// It works, and should be another way.
    Doubtful(String, String),
    /// With the exit code that a build would end with.
    Wrong(String, String, Kind),
    NotTried(String),
}

impl Found {
    fn wrong(error: &Error, mend: &str) -> Self {
        let cause = error.causes().first().map(|cause| format!(": {cause}")).unwrap_or_default();
        let mend = error.hint_text().unwrap_or(mend);
        Self::Wrong(format!("{}{cause}", error.message()), mend.to_owned(), error.kind())
    }

    fn of_store(what: &str, error: &store::Error, mend: &str) -> Self {
        Self::Wrong(format!("{what}: {error}"), error.hint_text().unwrap_or(mend).to_owned(), Kind::Cache)
    }
}

/// Tries everything.
///
/// # Errors
/// None of what is found wrong: that is in the answer, with the exit code that a build would have.
pub async fn doctor(settings: &Settings, doctor: &DoctorSettings, events: &Events) -> Result<Answer> {
    let registries = Registries::new(&settings.registries, events.clone());
    let mut all: Vec<(&str, Found)> = vec![("ci", ci(doctor))];
    all.extend(daemon(settings).await);
    if doctor.tags.is_empty() {
        all.push(("registry", Found::NotTried("-t names no image".to_owned())));
    }
    for tag in &doctor.tags {
        all.push(("registry", registry(&registries, tag).await));
    }
    match &doctor.store {
        Some(cache) => all.extend(cache_of(cache).await),
        None => all.push(("cache", Found::NotTried("--cache-mode is off".to_owned()))),
    }
    all.push(("room", room()));
    if !doctor.proxies.is_empty() {
        let names = doctor.proxies.join(", ");
        all.push(("proxies", Found::Right(format!("{names} (never used for 127.0.0.1, through which layers go to the daemon)"))));
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
    let daemon = match Daemon::connect(settings).await {
        Ok(daemon) => daemon,
        Err(error) => {
            let mend = "start one; in CodeBuild the project needs privileged mode. Without one only unchanged and appended images are pushed";
            return vec![("daemon", Found::wrong(&error, mend))];
        }
    };
    let store = match daemon.info.store {
        StoreKind::GraphDriver => "overlay2 or the like",
        StoreKind::Containerd => "containerd image store",
    };
    let told = format!("Docker {}, {store}, {}", daemon.info.version, daemon.info.platform);
    let way = match Way::choose(settings.transport, &daemon.docker).await {
        Ok(Way::Registry) => Found::Right("through a registry on 127.0.0.1".to_owned()),
        Ok(Way::Archive) => Found::Doubtful(
            "as archives: the daemon cannot reach this host".to_owned(),
            "layers go faster where the daemon shares this host's 127.0.0.1 (in a container: --network host)".to_owned(),
        ),
        Err(error) => Found::wrong(&error, "--transport archive needs no registry on 127.0.0.1"),
    };
    vec![("daemon", Found::Right(told)), ("transport", way)]
}

/// Credentials, and whether they let push. Nothing is made and no tag is looked at.
async fn registry(registries: &Registries, tag: &ImageRef) -> Found {
    let settings = PushSettings { if_tag_exists: IfTagExists::Overwrite, ..PushSettings::default() };
    let tried = tokio::time::timeout(PATIENCE, preflight(registries, std::slice::from_ref(tag), &settings)).await;
    match tried {
        Ok(Ok(_)) => Found::Right(format!("{} may be pushed to", tag.repository)),
        Ok(Err(error)) => Found::wrong(&error, "`hakobi login HOST` tries the credentials by themselves"),
        Err(_) => Found::Wrong(
            format!("{} does not answer", tag.repository.host),
            "a network without a way there, or a proxy that is not named (HTTPS_PROXY)".to_owned(),
            Kind::Push,
        ),
    }
}

async fn cache_of(cache: &CacheSettings) -> Vec<(&'static str, Found)> {
    let silent = || {
        let mend = "a network without a way there (an endpoint for S3 in a VPC), or a proxy that is not named (HTTPS_PROXY)";
        Found::Wrong(format!("{} does not answer", cache.shown), mend.to_owned(), Kind::Cache)
    };
    let tried = async {
        let store = kept::open(&cache.location).await;
        match kept::is_there(&*store).await {
            Ok(there) => tries(&*store, cache, there).await,
            Err(error) => {
                vec![("cache", Found::of_store(&cache.shown, &error, "s3:GetObject on its objects, s3:ListBucket on the bucket"))]
            }
        }
    };
    tokio::time::timeout(PATIENCE, tried).await.unwrap_or_else(|_| vec![("cache", silent())])
}

/// Writes, reads and removes an object of its own.
async fn tries(store: &dyn Store, cache: &CacheSettings, there: bool) -> Vec<(&'static str, Found)> {
    let Ok(name) = format!("probe/{:032x}", rand::random::<u128>()).parse::<Name>() else { return Vec::new() };
    let bytes = BytesSource::new("hakobi doctor\n".into());
    let state = if there { "there" } else { "empty, or not there yet" };
    let written = store.write(&name, &bytes).await;
    let read_only = cache.mode == CacheMode::ReadOnly;
    match &written {
        Err(error) if read_only && error.fault() == Fault::Denied => {
            return vec![("cache", Found::Right(format!("{} ({state}) may be read, and not written", cache.shown)))];
        }
        Err(error) => {
            let mend = "s3:PutObject on its objects; with a KMS key also kms:GenerateDataKey and kms:Decrypt";
            return vec![("cache", Found::of_store(&format!("{} cannot be written", cache.shown), error, mend))];
        }
        Ok(()) => {}
    }
    let read = store::read_small(store, &name, 1 << 10).await;
    let listed = store.list("probe/").await;
    let removed = store.delete(&name).await;
    let found = match (read, removed) {
        (Err(error), _) => Found::of_store(&format!("{} cannot be read", cache.shown), &error, "s3:GetObject on its objects"),
        (Ok(None), _) => Found::Wrong(
            format!("{} does not give what was just written to it", cache.shown),
            "another bucket, or a directory that is not shared".to_owned(),
            Kind::Cache,
        ),
        _ if read_only => Found::Doubtful(
            format!("{} may be written, although --cache-mode is read-only", cache.shown),
            "that is this program's word alone: give jobs of pull requests a role without s3:PutObject, or what they run can write what main reads".to_owned(),
        ),
        // A build removes nothing.
        (_, Err(_)) => Found::Right(format!("{} ({state}) may be read and written; {name} stays there, as removing it is denied", cache.shown)),
        _ => Found::Right(format!("{} ({state}) may be read and written", cache.shown)),
    };
    let mut all = vec![("cache", found)];
    let entry = listed.ok().and_then(|entries| entries.into_iter().find(|entry| entry.name == name));
    if let Some(entry) = entry {
        let apart = entry.written.abs_diff(seconds_now());
        all.push(match apart > CLOCKS_APART {
            true => (
                "clock",
                Found::Wrong(
                    format!("this machine's clock and the cache's are {} minutes apart", apart / 60),
                    "set the clock: AWS refuses requests of one that is a quarter of an hour off".to_owned(),
                    Kind::Cache,
                ),
            ),
            false => ("clock", Found::Right("as the cache's".to_owned())),
        });
    }
    all
}

/// Where layers lie on their way.
fn room() -> Found {
    let directory = match super::room(Kind::Usage) {
        Ok(directory) => directory,
        Err(error) => return Found::wrong(&error, "TMPDIR names another place"),
    };
    let shown = directory.path().parent().unwrap_or(directory.path()).display().to_string();
    match rustix::fs::statvfs(directory.path()) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let told = format!("{shown} has {} MB free for layers on their way", free >> 20);
            match free < ROOM {
                true => Found::Doubtful(
                    told,
                    "TMPDIR names another place; several large layers may be on their way at once".to_owned(),
                ),
                false => Found::Right(told),
            }
        }
        Err(error) => Found::NotTried(format!("{shown}: {error}")),
    }
}
