//! Checks what a bucket's lifecycle rules do to its cache. A build removes nothing, so only these rules limit the cache's size.

use super::Found;
use crate::error::Kind;
use crate::settings::CacheSettings;
use crate::store::{Fault, Rule, S3Store};

/// Fewest days for a useful cache: a weekend without builds.
const SHORT: u32 = 3;

/// Storage classes whose objects must be restored before reading, which takes hours.
const ARCHIVES: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

/// Reads the bucket's rules and checks them.
pub(super) async fn looked_at(bucket: &S3Store, cache: &CacheSettings) -> Found {
    match bucket.lifecycle().await {
        Ok(rules) => judged(&rules, &bucket.root(), &cache.shown),
        Err(error) if error.fault() == Fault::Denied => Found::NotTried(
            "this role cannot read the bucket's rules (s3:GetLifecycleConfiguration); no build needs this".to_owned(),
        ),
        Err(error) => Found::NotTried(format!("failed to read the rules: {error}")),
    }
}

fn judged(rules: &[Rule], root: &str, shown: &str) -> Found {
    let archiving = rules.iter().find(|rule| rule.touches(root) && rule.moves_to.iter().any(|class| is_archive(class)));
    if let Some(rule) = archiving {
        return Found::Wrong(
            format!(
                "the rule {} moves objects of {shown} to {}, which does not allow immediate reads",
                rule.id,
                rule.moves_to.join(", ")
            ),
            "exclude the cache's prefix from that rule".to_owned(),
            Kind::Cache,
        );
    }
    let covering = rules.iter().filter(|rule| rule.covers(root) && rule.expires.is_some());
    let Some(soonest) = covering.min_by_key(|rule| rule.expires) else {
        return Found::Doubtful(
            format!("no rule removes objects of {shown}: it grows without limit"),
            "add a lifecycle rule that expires objects, for example after 30 days: docs/costs.md".to_owned(),
        );
    };
    let days = soonest.expires.unwrap_or_default();
    let plural = if days == 1 { "" } else { "s" };
    let told = format!("the rule {} removes objects {days} day{plural} after they were written", soonest.id);
    if days < SHORT {
        return Found::Doubtful(told, "use more days: removed layers are built again".to_owned());
    }
    // These rules would remove a part of what a record needs before the record itself.
    let partial =
        rules.iter().filter(|rule| rule.touches(root) && !rule.covers(root)).find_map(|rule| Some((rule, rule.expires?)));
    if let Some((rule, less)) = partial.filter(|(_, less)| *less < days) {
        return Found::Doubtful(
            format!("{told}, and the rule {} removes some of them after {less}", rule.id),
            "use one rule for the whole prefix: if layers expire before the records that name them, they are built again"
                .to_owned(),
        );
    }
    if !rules.iter().any(|rule| rule.covers(root) && rule.aborts_uploads) {
        return Found::Doubtful(
            format!("{told}, and none aborts incomplete uploads: their parts remain hidden and cost money"),
            "add AbortIncompleteMultipartUpload after a day to the same rule".to_owned(),
        );
    }
    Found::Right(told)
}

fn is_archive(class: &str) -> bool {
    ARCHIVES.contains(&class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(prefix: &str, expires: Option<u32>) -> Rule {
        Rule { id: "r".into(), prefix: prefix.into(), is_partial: false, expires, moves_to: Vec::new(), aborts_uploads: true }
    }

    fn told(rules: &[Rule]) -> String {
        match judged(rules, "hakobi/", "s3://b/hakobi") {
            Found::Right(told) => format!("right: {told}"),
            Found::Doubtful(told, _) => format!("doubtful: {told}"),
            Found::Wrong(told, ..) => format!("wrong: {told}"),
            Found::NotTried(told) => told,
        }
    }

    #[test]
    fn rules_are_judged_by_what_they_do_to_the_cache() {
        assert_eq!(told(&[rule("hakobi/", Some(30))]), "right: the rule r removes objects 30 days after they were written");
        assert_eq!(told(&[rule("", Some(90))]), "right: the rule r removes objects 90 days after they were written");
        for others in [vec![], vec![rule("logs/", Some(30))], vec![rule("hakobi/", None)], vec![rule("hakobi/blobs/", Some(30))]]
        {
            assert!(told(&others).starts_with("doubtful: no rule removes objects"), "{others:?}");
        }
        let by_tag = Rule { is_partial: true, ..rule("hakobi/", Some(30)) };
        assert!(told(&[by_tag]).starts_with("doubtful: no rule removes objects"));
        assert!(told(&[rule("", Some(1))]).starts_with("doubtful: the rule r removes objects 1 day after"));
        assert!(
            told(&[rule("", Some(30)), rule("hakobi/blobs/", Some(7))]).ends_with("and the rule r removes some of them after 7")
        );
        let endless = Rule { aborts_uploads: false, ..rule("", Some(30)) };
        assert!(told(&[endless]).contains("none aborts incomplete uploads"));
        let archives = Rule { moves_to: vec!["DEEP_ARCHIVE".into()], ..rule("hakobi/blobs/", None) };
        assert!(told(&[rule("", Some(30)), archives]).starts_with("wrong: the rule r moves objects"));
        let at_hand = Rule { moves_to: vec!["STANDARD_IA".into()], ..rule("", Some(30)) };
        assert!(told(&[at_hand]).starts_with("right"));
    }
}
