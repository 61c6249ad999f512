//! Reads what a bucket does to its objects: its lifecycle rules and its encryption.

use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule, LifecycleRuleFilter};

use super::{S3Store, error};
use crate::store::{Name, Result};

/// An enabled lifecycle rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name in the bucket.
    pub id: String,
    /// The prefix of the keys that it applies to; empty for all.
    pub prefix: String,
    /// Whether it applies only to some of these: by tag or by size.
    pub is_partial: bool,
    /// After how many days it removes an object.
    pub expires: Option<u32>,
    /// Storage classes that it moves objects to.
    pub moves_to: Vec<String>,
    /// Whether it aborts incomplete uploads.
    pub aborts_uploads: bool,
}

/// How an object is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// `AES256`, `aws:kms`, …
    pub algorithm: String,
    /// The KMS key.
    pub key: Option<String>,
}

impl S3Store {
    /// Returns the prefix of all its keys: empty, or with a slash at its end.
    #[must_use]
    pub fn root(&self) -> String {
        self.0.key("")
    }

    /// Returns the bucket's enabled lifecycle rules.
    ///
    /// # Errors
    /// If the bucket does not report them.
    pub async fn lifecycle(&self) -> Result<Vec<Rule>> {
        let bucket = &self.0.settings.bucket;
        let asked = self.0.client.get_bucket_lifecycle_configuration().bucket(bucket).send().await;
        let doing = "read the lifecycle rules";
        match asked {
            Ok(found) => {
                let rules = found.rules().iter();
                Ok(rules.filter(|rule| *rule.status() == ExpirationStatus::Enabled).map(Rule::new).collect())
            }
            // S3 answers like this if there are no rules.
            Err(error) => match error::absent_or(doing, "s3:GetLifecycleConfiguration", bucket, &error) {
                None => Ok(Vec::new()),
                Some(error) => Err(error),
            },
        }
    }

    /// Returns how an object is encrypted, or `None` if the server does not report it.
    ///
    /// # Errors
    /// If the object cannot be looked up.
    pub async fn encryption(&self, name: &Name) -> Result<Option<Encryption>> {
        let bucket = &self.0.settings.bucket;
        let head = self.0.client.head_object().bucket(bucket).key(self.key(name)).send().await;
        let head = head.map_err(|error| error::failed(&format!("check {name}"), "s3:GetObject", bucket, &error))?;
        Ok(head.server_side_encryption().map(|algorithm| Encryption {
            algorithm: algorithm.as_str().to_owned(),
            key: head.ssekms_key_id().map(str::to_owned),
        }))
    }
}

impl Rule {
    fn new(rule: &LifecycleRule) -> Self {
        let filter = rule.filter();
        let both = filter.and_then(LifecycleRuleFilter::and);
        // Before filters existed, rules had a prefix of their own.
        #[allow(deprecated)]
        let old = rule.prefix();
        let prefix = filter.and_then(LifecycleRuleFilter::prefix).or_else(|| both.and_then(|both| both.prefix())).or(old);
        let by_tag_or_size = |filter: &LifecycleRuleFilter| {
            filter.tag().is_some() || filter.object_size_greater_than().is_some() || filter.object_size_less_than().is_some()
        };
        let both_partial = both.is_some_and(|both| {
            !both.tags().is_empty() || both.object_size_greater_than().is_some() || both.object_size_less_than().is_some()
        });
        let days = rule.expiration().and_then(|expiration| expiration.days());
        Self {
            id: rule.id().unwrap_or_default().to_owned(),
            prefix: prefix.unwrap_or_default().to_owned(),
            is_partial: filter.is_some_and(by_tag_or_size) || both_partial,
            expires: days.and_then(|days| u32::try_from(days).ok()),
            moves_to: rule
                .transitions()
                .iter()
                .filter_map(|transition| transition.storage_class())
                .map(|class| class.as_str().to_owned())
                .collect(),
            aborts_uploads: rule.abort_incomplete_multipart_upload().is_some(),
        }
    }

    /// Returns whether it applies to all objects under this prefix.
    #[must_use]
    pub fn covers(&self, root: &str) -> bool {
        !self.is_partial && root.starts_with(&*self.prefix)
    }

    /// Returns whether it applies to any object under this prefix.
    #[must_use]
    pub fn touches(&self, root: &str) -> bool {
        root.starts_with(&*self.prefix) || self.prefix.starts_with(root)
    }
}
