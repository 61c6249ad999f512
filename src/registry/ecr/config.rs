//! Creates ECR's client for a registry's account and region.

use std::time::Duration;

use super::EcrHost;
use crate::aws::{self, AwsSource, Wanted};

/// Returns the client for a registry's account and region.
pub(super) async fn client(source: &AwsSource, host: &EcrHost, role: Option<&String>) -> aws_sdk_ecr::Client {
    let wanted = Wanted {
        region: Some(host.region.clone()),
        role: role.cloned(),
        proxied: format!("https://api.ecr.{}.amazonaws.com/", host.region),
        fips: host.fips,
        dual_stack: host.dual_stack,
        attempt: Some(Duration::from_secs(20)),
        total: Some(Duration::from_secs(90)),
    };
    let config = aws_sdk_ecr::config::Builder::from(&aws::config(source, &wanted).await);
    aws_sdk_ecr::Client::from_conf(config.interceptor(aws::ShowRequests("registry")).build())
}
