//! Removes many objects at once, and uploads that were never completed.

use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{Inner, error};
use crate::store::{Error, Fault, Name, Result};

/// The most objects of one request (S3 `DeleteObjects`).
const MOST: usize = 1000;

/// How many such requests run at once.
const AT_ONCE: usize = 4;

/// What an answer counts for the pace, in bytes: the store is not silent.
pub(super) const ALIVE: u64 = 1 << 20;

/// What the names of hakobi's objects begin with.
const KINDS: [&str; 6] = ["blobs/", "sums/", "steps/", "refs/", "uses/", "prune/"];

/// Removes objects. Missing ones are no fault.
pub(super) async fn delete_all(inner: &Inner, names: &[Name]) -> Result<()> {
    let chunks: Vec<Vec<Name>> = names.chunks(MOST).map(<[Name]>::to_vec).collect();
    let deleted = stream::iter(chunks).map(|names| async move { delete_some(inner, &names).await }).buffer_unordered(AT_ONCE);
    deleted.try_collect().await
}

async fn delete_some(inner: &Inner, names: &[Name]) -> Result<()> {
    let Inner { client, settings, .. } = inner;
    let broken = |error: aws_sdk_s3::error::BuildError| Error::new(Fault::Other, format!("failed to delete objects: {error}"));
    let objects = names.iter().map(|name| ObjectIdentifier::builder().key(inner.key(name.as_str())).build());
    let objects = objects.collect::<std::result::Result<Vec<_>, _>>().map_err(broken)?;
    let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build().map_err(broken)?;
    let sent = client.delete_objects().bucket(&settings.bucket).delete(delete).send().await;
    inner.pace.moved(ALIVE);
    let done = match sent {
        Ok(done) => done,
        // Servers other than AWS's may not know this request, or want another checksum with it.
        Err(error) if matches!(error.code(), Some("NotImplemented" | "MissingContentMD5" | "InvalidRequest")) => {
            return one_by_one(inner, names).await;
        }
        Err(error) => return Err(error::failed("delete objects", "s3:DeleteObject", &settings.bucket, &error)),
    };
    match done.errors().first() {
        None => Ok(()),
        Some(failed) => {
            let key = failed.key().unwrap_or_default();
            let why = failed.message().or(failed.code()).unwrap_or("no reason given");
            let fault = if failed.code() == Some("AccessDenied") { Fault::Denied } else { Fault::Other };
            Err(Error::new(fault, format!("failed to delete {key} and {} other objects: {why}", done.errors().len() - 1)))
        }
    }
}

async fn one_by_one(inner: &Inner, names: &[Name]) -> Result<()> {
    let Inner { client, settings, .. } = inner;
    for name in names {
        let sent = client.delete_object().bucket(&settings.bucket).key(inner.key(name.as_str())).send().await;
        inner.pace.moved(ALIVE);
        if let Err(error) = sent
            && let Some(error) = error::absent_or(&format!("delete {name}"), "s3:DeleteObject", &settings.bucket, &error)
        {
            return Err(error);
        }
    }
    Ok(())
}

/// Aborts uploads in parts that began before this time, in seconds of the Unix epoch. Returns their number.
pub(super) async fn abort_uploads(inner: &Inner, before: u64) -> Result<u64> {
    let Inner { client, settings, .. } = inner;
    let bucket = &settings.bucket;
    let mut aborted = 0;
    let (mut key, mut upload) = (None, None);
    loop {
        let request = client.list_multipart_uploads().bucket(bucket).prefix(inner.key(""));
        let page = request.set_key_marker(key).set_upload_id_marker(upload).send().await;
        let page = match page {
            Ok(page) => page,
            // Servers other than AWS's may not list them.
            Err(error) if error.code() == Some("NotImplemented") => return Ok(aborted),
            Err(error) => return Err(error::failed("list uploads", "s3:ListBucketMultipartUploads", bucket, &error)),
        };
        inner.pace.moved(ALIVE);
        for upload in page.uploads() {
            let began = upload.initiated().and_then(|at| u64::try_from(at.secs()).ok());
            let (Some(key), Some(id), true) = (upload.key(), upload.upload_id(), began.is_some_and(|began| began < before))
            else {
                continue;
            };
            // Other objects in the bucket are not hakobi's.
            if !key.strip_prefix(&inner.key("")).is_some_and(|name| KINDS.iter().any(|kind| name.starts_with(kind))) {
                continue;
            }
            let sent = client.abort_multipart_upload().bucket(bucket).key(key).upload_id(id).send().await;
            // It may have ended since.
            if let Err(error) = sent
                && let Some(error) = error::absent_or(&format!("abort {key}"), "s3:AbortMultipartUpload", bucket, &error)
            {
                return Err(error);
            }
            inner.pace.moved(ALIVE);
            aborted += 1;
        }
        (key, upload) = (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker().map(str::to_owned));
        if page.is_truncated() != Some(true) || key.is_none() {
            return Ok(aborted);
        }
    }
}
