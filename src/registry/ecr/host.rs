//! Recognizes the hosts of private ECR registries, with their account and region.

use crate::domain::RegistryHost;

/// A private ECR registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcrHost {
    /// The account that owns the registry.
    pub account: String,
    /// Its region.
    pub region: String,
    /// Whether the host is a FIPS endpoint.
    pub fips: bool,
    /// Whether the host is a dual-stack endpoint (`.on.aws`).
    pub dual_stack: bool,
}

impl EcrHost {
    /// Reads `<account>.dkr.ecr[-fips].<region>.<domain>` and `<account>.dkr-ecr[-fips].<region>.on.<domain>` (ECR user
    /// guide, "Private registries" and "Making requests over IPv6"). `public.ecr.aws` is another service.
    #[must_use]
    pub fn parse(host: &RegistryHost) -> Option<Self> {
        let parts: Vec<&str> = host.as_str().split('.').collect();
        let (account, fips, dual_stack, region, domain) = match parts[..] {
            [account, "dkr", "ecr", region, ref domain @ ..] => (account, false, false, region, domain),
            [account, "dkr", "ecr-fips", region, ref domain @ ..] => (account, true, false, region, domain),
            [account, "dkr-ecr", region, ref domain @ ..] => (account, false, true, region, domain),
            [account, "dkr-ecr-fips", region, ref domain @ ..] => (account, true, true, region, domain),
            _ => return None,
        };
        let digits = !account.is_empty() && account.bytes().all(|b| b.is_ascii_digit());
        let known = if dual_stack {
            matches!(domain.join(".").as_str(), "on.aws" | "on.amazonwebservices.com.cn" | "on.amazonwebservices.eu")
        } else {
            matches!(
                domain.join(".").as_str(),
                "amazonaws.com"
                    | "amazonaws.com.cn"
                    | "amazonaws.eu"
                    | "sc2s.sgov.gov"
                    | "c2s.ic.gov"
                    | "cloud.adc-e.uk"
                    | "csp.hci.ic.gov"
            )
        };
        (digits && known && !region.is_empty()).then(|| Self {
            account: account.to_owned(),
            region: region.to_owned(),
            fips,
            dual_stack,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecr_hosts_name_account_and_region() {
        for (host, account, region, fips, dual_stack) in [
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "123456789012", "eu-west-1", false, false),
            ("1234.dkr.ecr.cn-north-1.amazonaws.com.cn", "1234", "cn-north-1", false, false),
            ("1234.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "1234", "us-gov-west-1", true, false),
            ("1234.dkr-ecr.us-east-1.on.aws", "1234", "us-east-1", false, true),
            ("1234.dkr-ecr-fips.us-east-1.on.aws", "1234", "us-east-1", true, true),
            ("1234.dkr.ecr.eusc-de-east-1.amazonaws.eu", "1234", "eusc-de-east-1", false, false),
        ] {
            let expected = EcrHost { account: account.into(), region: region.into(), fips, dual_stack };
            assert_eq!(EcrHost::parse(&RegistryHost::new(host)), Some(expected), "{host}");
        }
    }

    #[test]
    fn other_hosts_are_none() {
        for host in [
            "public.ecr.aws",
            "docker.io",
            "x.dkr.ecr.eu-west-1.amazonaws.com",
            "12.dkr.ecr.eu-west-1.example.com",
            "12.dkr.ecr.eu-west-1.amazonaws.com:444",
        ] {
            assert_eq!(EcrHost::parse(&RegistryHost::new(host)), None, "{host}");
        }
    }
}
