//! Converts the SDK's errors to this room's errors.

use aws_sdk_ecr::error::{ProvideErrorMetadata, SdkError};

use crate::domain::RegistryHost;
use crate::registry::error::{Error, Kind};

/// Returns the error of a failed call: its kind and AWS's own message.
pub(super) fn failed<E>(what: &str, host: &RegistryHost, action: &'static str, error: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let (kind, cause) = match error {
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or_default();
            let message = service.err().message().unwrap_or("AWS returned no error message");
            let kind = match code {
                "AccessDeniedException" | "AccessDenied" => Kind::Denied,
                "ExpiredTokenException" | "UnrecognizedClientException" | "InvalidSignatureException" => Kind::Credentials,
                "ThrottlingException" | "TooManyRequestsException" => Kind::TooManyRequests,
                _ if error.raw_response().is_some_and(|response| response.status().as_u16() >= 500) => Kind::Unavailable,
                _ => Kind::Refused,
            };
            (kind, if code.is_empty() { message.to_owned() } else { format!("{code}: {message}") })
        }
        SdkError::ConstructionFailure(_) => (Kind::Credentials, innermost(error)),
        other if speaks_of_credentials(other) => (Kind::Credentials, "no AWS credentials were found".to_owned()),
        other => (Kind::Network, innermost(other)),
    };
    Error::on(kind, what, host).because(&cause).needs(action)
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        last = source.to_string();
        next = source.source();
    }
    last
}

/// Returns whether an error is about credentials. The SDK wraps missing credentials in a dispatch failure of the request that needs
/// them.
fn speaks_of_credentials(error: &dyn std::error::Error) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if text.contains("credentials provider")
            || text.contains("no providers in chain")
            || text.contains("failed to load identity")
        {
            return true;
        }
        next = error.source();
    }
    false
}
