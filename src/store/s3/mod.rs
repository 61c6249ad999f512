//! A store in S3, or in a server of the same protocol. The SDK's own configuration sets region, credentials and endpoint.

mod body;
mod delete;
mod error;
#[cfg(test)]
mod error_tests;
mod lifecycle;
mod read;
mod replace;
mod write;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};
use aws_types::service_config::ServiceConfigKey;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{Entry, Name, Object, ObjectStore, Pace, Result};
use crate::aws::{self, AwsSource, Wanted};
use crate::settings::S3Settings;
use crate::transfer::ByteStream;

pub use lifecycle::{Encryption, Rule};

/// Most parts that are read ahead at once, over all streams of the store.
const READ_AHEAD: usize = 16;

/// Most parts that are sent at once, over all objects.
const SENT_AT_ONCE: usize = 8;

/// How long one request may take, including its body of one part.
const ATTEMPT: Duration = Duration::from_secs(60);

/// Objects in a bucket, under a prefix.
#[derive(Clone)]
pub struct S3Store(Arc<Inner>);

struct Inner {
    client: Client,
    settings: S3Settings,
    ahead: Arc<Semaphore>,
    parts: Semaphore,
    /// Gets reports of all moved bytes.
    pace: Pace,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Store(s3://{}/{})", self.0.settings.bucket, self.0.settings.prefix)
    }
}

impl S3Store {
    /// Opens the store in a bucket. It sends no request yet.
    pub async fn open(settings: S3Settings, source: &AwsSource) -> Self {
        Self::open_paced(settings, source, Pace::default()).await
    }

    /// Opens the store with a pace that gets reports of all moved bytes: see [`super::Paced`].
    pub async fn open_paced(settings: S3Settings, source: &AwsSource, pace: Pace) -> Self {
        let wanted = Wanted {
            region: settings.region.clone(),
            // The time limit for uploading or downloading a part. The SDK then tries again.
            attempt: Some(ATTEMPT),
            proxied: format!("https://{}.s3.amazonaws.com/", settings.bucket),
            ..Wanted::default()
        };
        let shared = aws::config(source, &wanted).await;
        let mut config = aws_sdk_s3::config::Builder::from(&shared).interceptor(aws::ShowRequests("store"));
        // Self-hosted servers seldom have a host name for each bucket.
        let own = shared.endpoint_url().is_some() || service_endpoint(&shared).is_some();
        config = config.force_path_style(settings.path_style.unwrap_or(own));
        if shared.region().is_none() && own {
            config = config.region(aws_config::Region::new("us-east-1"));
        }
        let inner = Inner {
            client: Client::from_conf(config.build()),
            settings,
            ahead: Arc::new(Semaphore::new(READ_AHEAD)),
            parts: Semaphore::new(SENT_AT_ONCE),
            pace,
        };
        Self(Arc::new(inner))
    }

    fn key(&self, name: &Name) -> String {
        self.0.key(name.as_str())
    }
}

impl Inner {
    fn key(&self, name: &str) -> String {
        match &*self.settings.prefix {
            "" => name.to_owned(),
            prefix => format!("{prefix}/{name}"),
        }
    }

    fn encryption(&self) -> Option<ServerSideEncryption> {
        self.settings.kms_key.as_ref().map(|_| ServerSideEncryption::AwsKms)
    }

    fn storage_class(&self) -> Option<StorageClass> {
        self.settings.storage_class.as_deref().map(StorageClass::from)
    }
}

/// Returns `AWS_ENDPOINT_URL_S3`, or `endpoint_url` of the profile's services section. Returns `None` if neither is set.
fn service_endpoint(shared: &aws_config::SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build().ok()?;
    shared.service_config()?.load_config(key)
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn size(&self, name: &Name) -> Result<Option<u64>> {
        let Inner { client, settings, .. } = &*self.0;
        match client.head_object().bucket(&settings.bucket).key(self.key(name)).send().await {
            Ok(head) => Ok(head.content_length().and_then(|length| u64::try_from(length).ok())),
            Err(error) => match error::absent_or(&format!("check {name}"), "s3:GetObject", &settings.bucket, &error) {
                None => Ok(None),
                Some(error) => Err(error),
            },
        }
    }

    async fn read(&self, name: &Name, range: Range<u64>) -> Result<Option<ByteStream>> {
        read::open(Arc::clone(&self.0), self.key(name), range).await
    }

    async fn put(&self, name: &Name, object: &Object<'_>) -> Result<()> {
        write::write(&self.0, &self.key(name), object).await
    }

    async fn replace(&self, name: &Name, before: Option<&Bytes>, after: Bytes) -> Result<bool> {
        replace::replace(&self.0, &self.key(name), before, after).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let Inner { client, settings, .. } = &*self.0;
        let root = self.0.key("");
        let request = client.list_objects_v2().bucket(&settings.bucket).prefix(self.0.key(prefix));
        let mut pages = request.into_paginator().send();
        let mut entries = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| error::failed("list objects", "s3:ListBucket", &settings.bucket, &error))?;
            self.0.pace.moved(delete::ALIVE);
            for object in page.contents() {
                // Other objects in the bucket are not hakobi's.
                let name = object.key().and_then(|key| key.strip_prefix(&root)).and_then(|key| key.parse::<Name>().ok());
                let size = object.size().and_then(|size| u64::try_from(size).ok());
                if let (Some(name), Some(size)) = (name, size) {
                    let written = object.last_modified().map_or(0, |at| at.secs().unsigned_abs());
                    entries.push(Entry { name, size, written });
                }
            }
        }
        Ok(entries)
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        let Inner { client, settings, .. } = &*self.0;
        match client.delete_object().bucket(&settings.bucket).key(self.key(name)).send().await {
            Ok(_) => Ok(()),
            Err(error) => match error::absent_or(&format!("delete {name}"), "s3:DeleteObject", &settings.bucket, &error) {
                None => Ok(()),
                Some(error) => Err(error),
            },
        }
    }

    async fn delete_all(&self, names: &[Name]) -> Result<()> {
        delete::delete_all(&self.0, names).await
    }

    async fn delete_leftovers(&self, before: u64) -> Result<u64> {
        delete::abort_uploads(&self.0, before).await
    }
}

/// How long a connection may stall.
const STALL: Duration = Duration::from_secs(20);

/// Fewest bytes that a connection has to supply in that time; otherwise another connection reads the rest of the range.
const LEAST: u64 = 20 << 10;
