//! Replaces a small object, if nobody else did meanwhile: by S3's conditional writes.

use aws_sdk_s3::error::SdkError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;

use super::write::put_request;
use super::{Inner, error};
use crate::store::Result;

/// Replaces an object that has these bytes, or that is missing for `None`. Returns whether it did.
pub(super) async fn replace(inner: &Inner, key: &str, before: Option<&Bytes>, after: Bytes) -> Result<bool> {
    let bucket = &inner.settings.bucket;
    let found = match inner.client.get_object().bucket(bucket).key(key).send().await {
        Ok(found) => Some(found),
        Err(error) => match error::absent_or(&format!("read {key}"), "s3:GetObject", bucket, &error) {
            None => None,
            Some(error) => return Err(error),
        },
    };
    let etag = found.as_ref().and_then(|found| found.e_tag.clone());
    let there = match found {
        Some(found) => {
            let broken = |error: &dyn std::fmt::Display| {
                crate::store::Error::new(crate::store::Fault::Unreachable, format!("failed to read {key}: {error}"))
            };
            Some(found.body.collect().await.map_err(|error| broken(&error))?.into_bytes())
        }
        None => None,
    };
    if there.as_ref() != before {
        return Ok(false);
    }
    let request = put_request(inner, key, &after).await;
    let request = match etag {
        Some(etag) => request.if_match(etag),
        None => request.if_none_match("*"),
    };
    match request.body(super::body::body(after, &inner.pace)).send().await {
        Ok(_) => Ok(true),
        Err(error) if is_overtaken(&error) => Ok(false),
        Err(error) => Err(error::failed(&format!("write {key}"), "s3:PutObject", bucket, &error)),
    }
}

/// Returns whether another run replaced the object: 412, or 409 while that still went on. One that was removed is 404.
fn is_overtaken<E>(error: &SdkError<E, HttpResponse>) -> bool {
    error.raw_response().is_some_and(|response| matches!(response.status().as_u16(), 404 | 409 | 412))
}
