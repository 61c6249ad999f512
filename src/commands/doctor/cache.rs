//! Checks the cache: writes, reads and removes an object of its own. For S3, it also checks the encryption and the bucket's
//! lifecycle rules.

use std::sync::Arc;

use super::{Found, PATIENCE, registry_cache, rules};
use crate::aws::AwsSource;
use crate::cache::layout;
use crate::domain::{Digest, seconds_now};
use crate::error::Kind;
use crate::registry::Registries;
use crate::settings::{CacheMode, CacheSettings, StoreLocation};
use crate::store::{self, Fault, Name, ObjectStore, RegistryOptions, S3Store};
use crate::transfer::BytesSource;

/// How many seconds clocks may differ. AWS refuses requests if they differ by more than a quarter of an hour.
const CLOCKS_APART: u64 = 5 * 60;

/// The permissions on a KMS key that the role needs.
const KMS: &str = "allow kms:GenerateDataKey and kms:Decrypt on the bucket's key, in the role's policy and in the key's policy";

type All = Vec<(&'static str, Found)>;

impl Found {
    fn of_store(what: &str, error: &store::Error, mend: &str) -> Self {
        // If S3's answer is about the key, this advice is more useful than the general one.
        let mend = if is_about_key(error) { KMS } else { error.hint_text().unwrap_or(mend) };
        Self::Wrong(format!("{what}: {error}"), mend.to_owned(), Kind::Cache)
    }
}

/// Returns whether S3 failed because of the encryption.
fn is_about_key(error: &store::Error) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    text.contains("kms:") || text.contains("kms.")
}

/// Runs all checks of a cache.
pub(super) async fn tried(registries: &Registries, cache: &CacheSettings) -> All {
    let silent = || {
        let mend = "check the network route (in a VPC, an endpoint for S3), or set HTTPS_PROXY if a proxy is required";
        Found::Wrong(format!("no answer from {}", cache.shown), mend.to_owned(), Kind::Cache)
    };
    let tried = async {
        if let StoreLocation::Registry(location) = &cache.location {
            return registry_cache::tried(registries, cache, location).await;
        }
        let bucket = match &cache.location {
            StoreLocation::S3(settings) => Some(S3Store::open(settings.clone(), &AwsSource::Environment).await),
            StoreLocation::Directory(_) | StoreLocation::Registry(_) => None,
        };
        let store: Arc<dyn ObjectStore> = match &bucket {
            Some(bucket) => Arc::new(bucket.clone()),
            None => layout::open(&cache.location, registries, RegistryOptions::default()).await,
        };
        let mut all = match layout::is_there(&*store).await {
            Ok(there) => Probe { store: &*store, bucket: bucket.as_ref(), cache, there }.tried().await,
            Err(error) => {
                vec![(
                    "cache",
                    Found::of_store(&cache.shown, &error, "allow s3:GetObject on its objects and s3:ListBucket on the bucket"),
                )]
            }
        };
        if let Some(bucket) = bucket.filter(|_| !all.iter().any(|(_, found)| matches!(found, Found::Wrong(..)))) {
            all.push(("lifecycle", rules::looked_at(&bucket, cache).await));
        }
        all
    };
    tokio::time::timeout(PATIENCE, tried).await.unwrap_or_else(|_| vec![("cache", silent())])
}

/// A cache that answers.
struct Probe<'a> {
    store: &'a dyn ObjectStore,
    bucket: Option<&'a S3Store>,
    cache: &'a CacheSettings,
    /// Whether the cache was used before.
    there: bool,
}

impl Probe<'_> {
    async fn tried(&self) -> All {
        let Self { store, cache, .. } = self;
        // In the run's own scope, because it is correct that the role can write nowhere else.
        let name = Name::reference(&cache.scope, &format!("doctor-{:032x}", rand::random::<u128>()));
        let shown = &cache.shown;
        let state = if self.there { "there" } else { "empty or not yet created" };
        let written = self.write(&name).await;
        let read_only = cache.mode == CacheMode::ReadOnly;
        match &written {
            Err(error) if read_only && error.fault() == Fault::Denied => {
                return vec![("cache", Found::Right(format!("{shown} ({state}) is readable, but not writable")))];
            }
            Err(error) => {
                let mend = "allow s3:PutObject on its objects; with a KMS key also kms:GenerateDataKey and kms:Decrypt";
                return vec![("cache", Found::of_store(&format!("failed to write to {shown}"), error, mend))];
            }
            Ok(()) => {}
        }
        let read = store::read_small(*store, &name, 1 << 10).await;
        let listed = store.list(&Name::references(&cache.scope)).await;
        let encryption = self.encryption(&name).await;
        let removed = store.delete(&name).await;
        let found = match (read, removed) {
            (Err(error), _) => Found::of_store(&format!("failed to read {shown}"), &error, "allow s3:GetObject on its objects"),
            (Ok(None), _) => Found::Wrong(
                format!("{shown} does not return the object that hakobi just wrote"),
                "use another bucket, or a directory that is not shared".to_owned(),
                Kind::Cache,
            ),
            _ if read_only => Found::Doubtful(
                format!("{shown} is writable, although --cache-mode is read-only"),
                "give jobs of pull requests a role without s3:PutObject: --cache-mode does not stop their other programs from writing what main reads".to_owned(),
            ),
            // A build removes nothing, so this is no fault.
            (_, Err(_)) => {
                Found::Right(format!("{shown} ({state}) is readable and writable; {name} remains there, because deleting it is denied"))
            }
            _ => Found::Right(format!("{shown} ({state}) is readable and writable")),
        };
        let mut all = vec![("cache", found)];
        all.extend(encryption.map(|found| ("encryption", found)));
        all.extend(self.trusted(read_only).await.map(|found| ("scope", found)));
        let entry = listed.ok().and_then(|entries| entries.into_iter().find(|entry| entry.name == name));
        all.extend(entry.map(|entry| ("clock", clock(entry.written))));
        all
    }

    async fn write(&self, name: &Name) -> store::Result<()> {
        self.store.write(name, &BytesSource::new("hakobi doctor\n".into())).await
    }

    /// Checks that the object was encrypted as the cache's URL requests. Returns `None` if there is nothing to check.
    async fn encryption(&self, name: &Name) -> Option<Found> {
        let (bucket, StoreLocation::S3(settings)) = (self.bucket?, &self.cache.location) else { return None };
        let found = match bucket.encryption(name).await {
            Ok(Some(found)) => found,
            Ok(None) if settings.kms_key.is_some() => {
                let what = "the server does not report encryption, although kms-key= is given";
                return Some(Found::Doubtful(what.to_owned(), "use a server that supports KMS, or remove kms-key=".to_owned()));
            }
            // Self-hosted servers seldom report it.
            Ok(None) => return Some(Found::NotTried("the server does not report it".to_owned())),
            Err(error) => {
                return Some(Found::of_store("failed to check the encryption", &error, "allow s3:GetObject on its objects"));
            }
        };
        let is_kms = found.algorithm.starts_with("aws:kms");
        let told = match &found.key {
            Some(key) => format!("{} with the key {key}", found.algorithm),
            None => found.algorithm,
        };
        Some(match settings.kms_key.is_some() && !is_kms {
            true => Found::Doubtful(
                format!("{told}, although kms-key= is given"),
                "check the bucket's default encryption and its policy".to_owned(),
            ),
            false => Found::Right(told),
        })
    }

    /// Checks that a pull request's job cannot write the scope that others trust. Returns `None` if this is no such job.
    async fn trusted(&self, read_only: bool) -> Option<Found> {
        let number = self.cache.scope.strip_prefix("pr-")?;
        let trusted = self.cache.fallbacks.first()?;
        if read_only || number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let name = Name::record(trusted, &Digest::hash(format!("hakobi doctor {:032x}", rand::random::<u128>()).as_bytes()));
        Some(match self.write(&name).await {
            Err(error) if error.fault() == Fault::Denied => {
                Found::Right(format!("this pull request cannot write the scope {trusted}, which it reads"))
            }
            Err(error) => Found::NotTried(format!("the scope {trusted}: {error}")),
            Ok(()) => {
                let _ = self.store.delete(&name).await;
                Found::Doubtful(
                    format!("this pull request's role can write the scope {trusted}, which main's builds trust"),
                    format!(
                        "use a separate project for pull requests with a role that can write only steps/{0}/*, refs/{0}/*, blobs/ and sums/, or --cache-mode read-only and a role that can only read",
                        self.cache.scope
                    ),
                )
            }
        })
    }
}

fn clock(written: u64) -> Found {
    let apart = written.abs_diff(seconds_now());
    match apart > CLOCKS_APART {
        true => Found::Wrong(
            format!("this machine's clock and the cache's are {} minutes apart", apart / 60),
            "set the clock: AWS refuses requests if it is 15 minutes off".to_owned(),
            Kind::Cache,
        ),
        false => Found::Right("as the cache's".to_owned()),
    }
}
