//! The AWS SDK's configuration: every source of credentials that the SDK knows, the system's proxy, a role per registry.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_ecr::config::{Credentials, SharedHttpClient};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, Connector};
use hyper_util::client::proxy::matcher::Matcher;

use super::EcrHost;

/// Where AWS is and who the user is to it.
#[derive(Debug, Clone, Default)]
pub enum AwsSource {
    /// As the AWS SDK finds it: the environment (AWS_ENDPOINT_URL_ECR included), profiles, SSO, web identity, ECS, EC2.
    #[default]
    Environment,
    /// Fixed: for tests.
    Fixed {
        /// The endpoint of all services.
        endpoint: String,
        /// Access key ID.
        access_key: String,
        /// Secret access key.
        secret_key: String,
    },
}

/// The client for a registry's account and region.
pub(super) async fn client(source: &AwsSource, host: &EcrHost, role: Option<&String>) -> aws_sdk_ecr::Client {
    let region = Region::new(host.region.clone());
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(region.clone())
        .http_client(http_client(host))
        .retry_config(RetryConfig::standard().with_max_attempts(4))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(10))
                .operation_attempt_timeout(Duration::from_secs(20))
                .operation_timeout(Duration::from_secs(90))
                .build(),
        );
    if host.fips {
        loader = loader.use_fips(true);
    }
    if host.dual_stack {
        loader = loader.use_dual_stack(true);
    }
    if let AwsSource::Fixed { endpoint, access_key, secret_key } = source {
        loader =
            loader.endpoint_url(endpoint).credentials_provider(Credentials::new(access_key, secret_key, None, None, "hakobi"));
    }
    let shared = loader.load().await;
    let mut config = aws_sdk_ecr::config::Builder::from(&shared);
    if let Some(role) = role {
        let provider = AssumeRoleProvider::builder(role).session_name("hakobi").region(region).configure(&shared).build().await;
        config = config.credentials_provider(provider);
    }
    aws_sdk_ecr::Client::from_conf(config.build())
}

/// TLS by ring, and the proxy that the system names for this registry's API. Plain HTTP, which is what credential endpoints
/// on link-local addresses speak, never goes through it.
fn http_client(host: &EcrHost) -> SharedHttpClient {
    let proxy = proxy(&host.region);
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder();
        if let Some(settings) = settings {
            connector = connector.connector_settings(settings.clone());
        }
        if let Some(sleep) = components.and_then(|components| components.sleep_impl()) {
            connector = connector.sleep_impl(sleep);
        }
        if let Some(proxy) = &proxy {
            connector = connector.proxy_config(proxy.clone());
        }
        connector.tls_provider(Provider::Rustls(CryptoMode::Ring)).build()
    })
}

fn proxy(region: &str) -> Option<ProxyConfig> {
    let api = format!("https://api.ecr.{region}.amazonaws.com/").parse().ok()?;
    let intercept = Matcher::from_env().intercept(&api)?;
    let mut proxy = ProxyConfig::https(intercept.uri().clone()).ok()?;
    if let Some((user, password)) = intercept.raw_auth() {
        proxy = proxy.with_basic_auth(user, password);
    }
    Some(proxy)
}
