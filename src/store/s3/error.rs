//! Translates S3's errors into messages that name the cause and the permission that the role lacks.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::store::{Error, Fault};

/// Returns the error of a failed call, or `None` if it means that the object is missing.
pub(super) fn absent_or<E>(doing: &str, needs: &str, bucket: &str, error: &SdkError<E, HttpResponse>) -> Option<Error>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    match (status, error.code()) {
        (_, Some("NoSuchBucket")) => Some(failed(doing, needs, bucket, error)),
        (Some(404), _) => None,
        _ => Some(failed(doing, needs, bucket, error)),
    }
}

/// Returns the error of a failed call.
pub(super) fn failed<E>(doing: &str, needs: &str, bucket: &str, error: &SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let region = error.raw_response().and_then(|response| response.headers().get("x-amz-bucket-region")).map(str::to_owned);
    let code = error.code().unwrap_or_default().to_owned();
    let said = match (error.message(), &*code) {
        (Some(message), "") => message.to_owned(),
        (Some(message), code) => format!("{code}: {message}"),
        (None, "") => match error {
            SdkError::ServiceError(_) => format!("the server answered {}", status.unwrap_or_default()),
            SdkError::ResponseError(_) => {
                format!("the server's answer {} cannot be read: {}", status.unwrap_or_default(), innermost(error))
            }
            other => innermost(other),
        },
        (None, code) => code.to_owned(),
    };
    let at = |fault| Error::new(fault, format!("failed to {doing} in the bucket {bucket}: {said}"));
    match (&*code, status) {
        ("NoSuchBucket", _) => at(Fault::Missing).hint("check the bucket's name, and the region and account of this role"),
        ("RequestTimeTooSkewed", _) => at(Fault::Denied).hint(format!("set this machine's clock: it is off{}", skew(error))),
        ("ExpiredToken" | "ExpiredTokenException", _) => at(Fault::Denied).hint("renew the AWS credentials: they have expired"),
        ("InvalidAccessKeyId", _) => at(Fault::Denied).hint("check the AWS credentials: S3 does not know the access key"),
        ("SignatureDoesNotMatch", _) => at(Fault::Denied).hint("check the AWS credentials: the secret key does not match the access key"),
        ("PermanentRedirect" | "AuthorizationHeaderMalformed", _) | (_, Some(301)) => {
            let region = region.unwrap_or_else(|| "another region".to_owned());
            at(Fault::Missing).hint(format!("set AWS_REGION, or add ?region= to the cache's URL: the bucket is in {region}"))
        }
        (_, Some(401)) => at(Fault::Denied).hint("check the AWS credentials: S3 rejected them"),
        (_, Some(403)) if needs == "s3:ListBucket" => at(Fault::Denied).hint("allow s3:ListBucket on the bucket for the role"),
        (_, Some(403)) => at(Fault::Denied).hint(format!(
            "allow {needs} and s3:ListBucket on the bucket for the role (without ListBucket, S3 denies access to missing objects); \
             for a bucket with a KMS key also kms:Decrypt and kms:GenerateDataKey"
        )),
        // The server is temporarily unavailable, although the SDK tried several times.
        (_, Some(429 | 500 | 502 | 503 | 504)) => at(Fault::Unreachable),
        (_, Some(_)) if matches!(error, SdkError::ResponseError(_)) => at(Fault::Unreachable),
        (_, Some(_)) => at(Fault::Other),
        (_, None) if said.contains("region must be set") => {
            at(Fault::Other).hint("set AWS_REGION, or add ?region= to the cache's URL")
        }
        (_, None) if said.contains("no providers in chain") || said.contains("credentials") => {
            Error::new(Fault::Denied, format!("failed to {doing} in the bucket {bucket}: no AWS credentials found"))
                .hint("give the job a role, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        }
        (_, None) => at(match error {
            SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => Fault::Unreachable,
            _ => Fault::Other,
        }),
    }
}

/// Returns the last of an error's causes: the SDK's outer errors do not help a user.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Returns by how many minutes the clocks differ, according to the answer's date.
fn skew<E>(error: &SdkError<E, HttpResponse>) -> String {
    let told = error
        .raw_response()
        .and_then(|response| response.headers().get("date"))
        .and_then(|date| aws_smithy_types::DateTime::from_str(date, aws_smithy_types::date_time::Format::HttpDate).ok());
    let now = crate::domain::seconds_now();
    match told {
        Some(told) => format!(" by {} minutes", (told.secs().unsigned_abs().abs_diff(now) + 30) / 60),
        None => String::new(),
    }
}
