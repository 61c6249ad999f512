//! Snapshots of S3's errors with their hints. A small server gives most of the answers that cause them.

use aws_sdk_s3::error::{ConnectorError, ErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::date_time::Format;

use super::error::failed;
use crate::aws::AwsSource;
use crate::error::shown;
use crate::registry::testing::{answer, serve};
use crate::settings::S3Settings;
use crate::store::{Error, Name, ObjectStore as _, S3Store};
use crate::transfer::BytesSource;

fn told(error: &Error) -> String {
    format!("{:?} {}", error.fault(), shown(error, error.hint_text()))
}

/// The answers, by the access key of the request.
fn answers(head: &str) -> String {
    let key = head.split("Credential=").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let error = |status: &str, headers: &str, message: &str| {
        answer(status, headers, &format!("<Error><Code>{key}</Code><Message>{message}</Message></Error>"))
    };
    match key {
        "NoSuchBucket" => error("404 Not Found", "", "The specified bucket does not exist"),
        "ExpiredToken" => error("400 Bad Request", "", "The provided token has expired."),
        "InvalidAccessKeyId" => error("403 Forbidden", "", "The AWS Access Key Id you provided does not exist in our records."),
        "SignatureDoesNotMatch" => error("403 Forbidden", "", "The request signature we calculated does not match."),
        "PermanentRedirect" => {
            let region = "x-amz-bucket-region: us-east-2\r\n";
            error(
                "301 Moved Permanently",
                region,
                "The bucket you are attempting to access must be addressed using the specified endpoint.",
            )
        }
        "AuthorizationHeaderMalformed" => error("400 Bad Request", "", "The authorization header is malformed"),
        "AccessDenied" => error("403 Forbidden", "", "Access Denied"),
        "InvalidArgument" => error("400 Bad Request", "", "Invalid Argument"),
        "Plain401" => answer("401 Unauthorized", "", ""),
        "WholeObject" => answer("200 OK", "", "{\"version\":1}"),
        _ => answer("403 Forbidden", "", ""),
    }
}

#[tokio::test]
async fn answers_of_s3() {
    let address = serve(answers).await;
    let open = async |key: &str| {
        let source =
            AwsSource::Fixed { endpoint: format!("http://{address}"), access_key: key.to_owned(), secret_key: "s".to_owned() };
        let settings = S3Settings {
            bucket: "cache".to_owned(),
            prefix: "team".to_owned(),
            region: Some("eu-west-1".to_owned()),
            path_style: None,
            kms_key: None,
            storage_class: None,
        };
        S3Store::open(settings, &source).await
    };
    let name = Name::format();
    let mut out = String::new();
    for key in [
        "NoSuchBucket",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "AccessDenied",
        "InvalidArgument",
        "Plain401",
        "WholeObject",
    ] {
        out.push_str(&told(&open(key).await.read(&name, 2..4).await.err().expect("refused")));
    }
    let denied = open("AccessDenied").await;
    out.push_str(&told(&denied.size(&name).await.expect_err("denied")));
    out.push_str(&told(&denied.write(&name, &BytesSource::new("{}".into())).await.expect_err("denied")));
    out.push_str(&told(&denied.list("").await.expect_err("denied")));
    out.push_str(&told(&denied.delete(&name).await.expect_err("denied")));
    out.push_str(&told(&denied.lifecycle().await.expect_err("denied")));
    out.push_str(&told(&denied.encryption(&name).await.expect_err("denied")));
    insta::assert_snapshot!("answers-of-s3", out);
}

/// The SDK tries these several times, or makes them from this machine's settings.
#[test]
fn errors_of_the_sdk() {
    let answer = |status: u16, metadata: ErrorMetadata| {
        let response = HttpResponse::new(status.try_into().expect("a status"), SdkBody::empty());
        SdkError::service_error(GetObjectError::generic(metadata), response)
    };
    // The server's clock is 20 minutes ahead.
    let skewed = |dated: bool| {
        let now = std::time::SystemTime::now();
        let date = DateTime::from(now + std::time::Duration::from_secs(20 * 60)).fmt(Format::HttpDate).expect("a date");
        let mut response = HttpResponse::new(403.try_into().expect("a status"), SdkBody::empty());
        if dated {
            response.headers_mut().insert("date", date);
        }
        let metadata = ErrorMetadata::builder().code("RequestTimeTooSkewed").message("The difference is too large.").build();
        SdkError::service_error(GetObjectError::generic(metadata), response)
    };
    let slow = ErrorMetadata::builder().code("SlowDown").message("Please reduce your request rate.").build();
    let connect = || io(std::io::ErrorKind::ConnectionRefused.into());
    let mut out = String::new();
    for error in [
        answer(503, slow),
        skewed(true),
        skewed(false),
        answer(500, ErrorMetadata::builder().build()),
        answer(501, ErrorMetadata::builder().code("NotImplemented").build()),
        SdkError::dispatch_failure(connect()),
        SdkError::timeout_error("no answer in 60 s"),
        SdkError::response_error("incomplete", HttpResponse::new(200.try_into().expect("a status"), SdkBody::empty())),
        SdkError::dispatch_failure(ConnectorError::other("no providers in chain provided credentials".into(), None)),
        SdkError::construction_failure("a region must be set when sending requests to S3"),
    ] {
        out.push_str(&told(&failed("read hakobi.json", "s3:GetObject", "cache", &error)));
    }
    insta::assert_snapshot!("errors-of-the-sdk", out);
}

fn io(error: std::io::Error) -> ConnectorError {
    ConnectorError::io(error.into())
}
