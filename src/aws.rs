//! Configures the AWS SDK: all its sources of credentials, the system's proxy, and a role to assume.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_smithy_runtime_api::client::retries::RequestAttempts;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use hyper_util::client::proxy::matcher::Matcher;

use crate::debug::Request;

/// The source of the credentials and the endpoint.
#[derive(Debug, Clone, Default)]
pub enum AwsSource {
    /// The AWS SDK's own sources: the environment (`AWS_ENDPOINT_URL_*` included), profiles, SSO, web identity, ECS, EC2.
    #[default]
    Environment,
    /// Fixed values, for tests.
    Fixed {
        /// The endpoint of all services.
        endpoint: String,
        /// The access key ID.
        access_key: String,
        /// The secret access key.
        secret_key: String,
    },
}

/// The options of one service's client.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The region. `None` means the SDK's own.
    pub region: Option<String>,
    /// The ARN of a role to assume.
    pub role: Option<String>,
    /// An address of the service, to look up the system's proxy: `https://api.ecr.eu-west-1.amazonaws.com/`.
    pub proxied: String,
    /// Whether to use FIPS endpoints.
    pub fips: bool,
    /// Whether to use dual-stack endpoints.
    pub dual_stack: bool,
    /// The time limit of one attempt. `None` means no limit, for streams.
    pub attempt: Option<Duration>,
    /// The time limit of all attempts together. `None` means no limit.
    pub total: Option<Duration>,
}

/// Returns the configuration of a client.
pub async fn config(source: &AwsSource, wanted: &Wanted) -> SdkConfig {
    let mut timeouts = TimeoutConfig::builder().connect_timeout(Duration::from_secs(10));
    timeouts.set_operation_attempt_timeout(wanted.attempt);
    timeouts.set_operation_timeout(wanted.total);
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client(&wanted.proxied))
        .retry_config(RetryConfig::standard().with_max_attempts(4))
        .timeout_config(timeouts.build());
    if let Some(region) = &wanted.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if wanted.fips {
        loader = loader.use_fips(true);
    }
    if wanted.dual_stack {
        loader = loader.use_dual_stack(true);
    }
    if let AwsSource::Fixed { endpoint, access_key, secret_key } = source {
        loader =
            loader.endpoint_url(endpoint).credentials_provider(Credentials::new(access_key, secret_key, None, None, "hakobi"));
    }
    let shared = loader.load().await;
    let Some(role) = &wanted.role else { return shared };
    let mut provider = AssumeRoleProvider::builder(role).session_name("hakobi").configure(&shared);
    if let Some(region) = shared.region() {
        provider = provider.region(region.clone());
    }
    let provider = aws_credential_types::provider::SharedCredentialsProvider::new(provider.build().await);
    shared.into_builder().credentials_provider(provider).build()
}

/// Shows the requests of a client (`--debug`).
#[derive(Debug)]
pub struct ShowRequests(pub &'static str);

/// The last request that was sent.
#[derive(Debug)]
struct Sent(Request);

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

impl Intercept for ShowRequests {
    fn name(&self) -> &'static str {
        "ShowRequests"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        settings: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let attempt = settings.load::<RequestAttempts>().map_or(1, RequestAttempts::attempts);
        let uri = context.request().uri().parse::<http::Uri>()?;
        let host = uri.authority().map(|authority| authority.as_str().rsplit('@').next().unwrap_or_default());
        let sent = Request::new(self.0, context.request().method(), host.unwrap_or_default(), uri.path(), attempt);
        settings.interceptor_state().store_put(Sent(sent));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        settings: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(Sent(sent)) = settings.load::<Sent>() {
            match context.response() {
                Some(response) => sent.answered(response.status().as_u16()),
                None => sent.failed("no answer"),
            }
        }
        settings.interceptor_state().unset::<Sent>();
        Ok(())
    }
}

/// Returns an HTTP client with TLS by ring, and with the system's proxy for this address. Plain HTTP never uses the proxy,
/// because only credential endpoints on link-local addresses use it.
fn http_client(address: &str) -> aws_smithy_runtime_api::client::http::SharedHttpClient {
    let proxy = proxy(address);
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

fn proxy(address: &str) -> Option<ProxyConfig> {
    let intercept = Matcher::from_env().intercept(&address.parse().ok()?)?;
    let mut proxy = ProxyConfig::https(intercept.uri().clone()).ok()?;
    if let Some((user, password)) = intercept.raw_auth() {
        proxy = proxy.with_basic_auth(user, password);
    }
    Some(proxy)
}
