//! Against the ECR of this process: its control plane, tokens and immutable tags.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hakobi::domain::{Digest, RegistryHost};
use hakobi::error::Kind as ErrorKind;
use hakobi::event::Events;
use hakobi::push::{self, Pusher, TagState};
use hakobi::registry::{AwsSource, Kind, Options, Registries};
use hakobi::settings::{CreateRepository, IfTagExists, PushSettings, RegistrySettings};
use hakobi::transfer::BytesSource;

use super::fixtures::*;
use crate::support::ecr_fake::{EcrFake, HOST};

#[tokio::test(flavor = "multi_thread")]
async fn a_push_logs_in_once_and_asks_for_layers_in_batches() {
    let fake = EcrFake::start().await;
    fake.add("team/app", false);
    let registries = ecr_registries(&fake);
    let repository = repository(HOST, "team/app");
    let image = image(2 << 20);
    push(&registries, &image, &repository, &["1"]).await.unwrap();
    assert_eq!(registries.repository(&repository).manifest("1").await.unwrap(), Some(image.manifest.clone()));
    let mut digests: Vec<Digest> = (0u32..230).map(|number| Digest::hash(&number.to_le_bytes())).collect();
    digests.push(image.blobs[0].0.digest.clone());
    let present = registries.repository(&repository).present(&digests).await.unwrap();
    assert_eq!(present.into_keys().collect::<Vec<_>>(), [image.blobs[0].0.digest.clone()]);
    let calls = fake.calls();
    assert_eq!(calls.iter().filter(|call| *call == "BatchCheckLayerAvailability").count(), 3);
    assert_eq!(fake.logins(), 1);
    // A role without that action asks the protocol.
    fake.deny("BatchCheckLayerAvailability");
    assert_eq!(registries.repository(&repository).present(&digests[228..]).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_repository_is_named_or_made_as_asked() {
    let fake = EcrFake::start().await;
    let registries = ecr_registries(&fake);
    let target = repository(HOST, "team/new").tag("1");
    let error = push::preflight(&registries, std::slice::from_ref(&target), &PushSettings::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Push);
    assert!(
        error
            .hint_text()
            .is_some_and(|hint| hint.contains("aws ecr create-repository --region eu-west-1 --repository-name team/new"))
    );
    let settings = PushSettings {
        create_repository: Some(CreateRepository {
            scan_on_push: true,
            immutable_tags: true,
            kms_key: Some("alias/k".into()),
            tags: BTreeMap::from([("team".into(), "a".into())]),
            lifecycle_policy: Some(r#"{"rules":[]}"#.into()),
        }),
        ..PushSettings::default()
    };
    for created in [1, 0] {
        let expected_contents = push::preflight(&registries, std::slice::from_ref(&target), &settings).await.unwrap();
        assert_eq!((expected_contents.push.len(), expected_contents.created.len()), (1, created));
    }
    let made = fake.repository("team/new").unwrap();
    assert!(made.immutable && made.lifecycle_policy.as_deref() == Some(r#"{"rules":[]}"#));
    assert_eq!(made.made_with["imageScanningConfiguration"]["scanOnPush"], true);
    assert_eq!(made.made_with["encryptionConfiguration"]["kmsKey"], "alias/k");
    assert_eq!(made.made_with["tags"][0]["Key"], "team");
    fake.deny("CreateRepository");
    let other = repository(HOST, "team/other").tag("1");
    let error = push::preflight(&registries, &[other], &settings).await.unwrap_err();
    assert!(error.hint_text().is_some_and(|hint| hint.contains("ecr:CreateRepository")), "{error} {:?}", error.hint_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_only_push_is_tried_by_an_upload() {
    let fake = EcrFake::start().await;
    fake.add("team/app", false);
    fake.deny("DescribeRepositories");
    let registries = ecr_registries(&fake);
    let target = repository(HOST, "team/app").tag("1");
    assert_eq!(push::preflight(&registries, &[target], &PushSettings::default()).await.unwrap().push.len(), 1);
    let missing = repository(HOST, "team/none").tag("1");
    let error = push::preflight(&registries, &[missing], &PushSettings::default()).await.unwrap_err();
    assert!(error.hint_text().is_some_and(|hint| hint.contains("create-repository")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_tag_is_an_error_in_words_and_the_same_image_a_success() {
    let fake = EcrFake::start().await;
    fake.add("team/app", true);
    let registries = ecr_registries(&fake);
    let repository = repository(HOST, "team/app");
    let (first, second) = (image(10), image(10));
    push(&registries, &first, &repository, &["1"]).await.unwrap();
    let pusher = Pusher::new(registries.clone(), vec![repository.clone()], Events::none());
    let again = pusher.put(&first.manifest, &[], &[repository.tag("1")]).await;
    assert_eq!(again[0].state.as_ref().ok(), Some(&TagState::AlreadyThere));
    for (_, bytes) in &second.blobs {
        pusher.upload(Arc::new(BytesSource::new(bytes.clone())), None);
    }
    pusher.finish_blobs().await.unwrap();
    let outcomes = pusher.put(&second.manifest, &[], &[repository.tag("1"), repository.tag("2")]).await;
    let error = outcomes[0].state.as_ref().unwrap_err();
    assert_eq!(error.kind, Kind::TagImmutable);
    assert!(error.to_string().contains("cannot be overwritten because the tag is immutable"), "{error}");
    assert!(outcomes[1].is_pushed(), "the other tag is attempted");
    let tags = [repository.tag("1"), repository.tag("9")];
    let error = push::preflight(&registries, &tags, &PushSettings::default()).await.unwrap_err();
    assert!(error.to_string().contains("immutable"), "{error}");
    let skip = PushSettings { if_tag_exists: IfTagExists::Skip, ..PushSettings::default() };
    assert_eq!(push::preflight(&registries, &tags, &skip).await.unwrap().push, [repository.tag("9")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_at_half_of_its_life_and_when_it_is_refused() {
    let fake = EcrFake::start().await;
    fake.add("team/app", false);
    fake.tokens_live(Duration::from_secs(60), Duration::from_secs(10));
    let registries = ecr_registries(&fake);
    let client = registries.repository(&repository(HOST, "team/app"));
    client.has(&Digest::hash(b"x")).await.unwrap();
    client.has(&Digest::hash(b"y")).await.unwrap();
    assert_eq!(fake.logins(), 1);
    tokio::time::sleep(Duration::from_millis(5300)).await;
    client.has(&Digest::hash(b"x")).await.unwrap();
    assert_eq!(fake.logins(), 2, "half of its life is over");
    fake.expire_tokens();
    assert_eq!(client.manifest("x").await.unwrap(), None);
    assert_eq!(fake.logins(), 3, "refused as expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_between_the_parts_of_an_upload_is_replaced() {
    let fake = EcrFake::start().await;
    fake.add("team/app", false);
    let registries = ecr_registries(&fake);
    let repository = repository(HOST, "team/app");
    let client = registries.repository(&repository);
    client.has(&Digest::hash(b"x")).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, spool) = hakobi::transfer::Spool::create(directory.path()).unwrap();
    let uploading = tokio::spawn({
        let client = client.clone();
        async move { client.upload(&spool, None, quiet()).await }
    });
    // The upload is begun with a good token; when its bytes come, and when it ends, the token is another.
    tokio::time::sleep(Duration::from_millis(300)).await;
    fake.expire_tokens();
    let bytes = noise(1 << 20);
    writer.write(&bytes[..500_000]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    fake.expire_tokens();
    writer.write(&bytes[500_000..]).await.unwrap();
    let identity = writer.finish();
    assert_eq!(uploading.await.unwrap().unwrap().identity, identity);
    assert!(client.has(&identity.digest).await.unwrap());
    assert!(fake.logins() >= 3, "{}", fake.logins());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_aws_gives_no_login_config_json_is_asked_and_else_the_error_says_what_to_do() {
    let fake = EcrFake::start().await;
    fake.deny("GetAuthorizationToken");
    let registries = ecr_registries(&fake);
    let target = repository(HOST, "team/app").tag("1");
    let error = push::preflight(&registries, &[target], &PushSettings::default()).await.unwrap_err();
    assert!(error.hint_text().is_some_and(|hint| hint.contains("ecr:GetAuthorizationToken")), "{error} {:?}", error.hint_text());
    let config = docker_config(&[(HOST, "AWS", "stored")]);
    let settings = RegistrySettings { docker_config: Some(config.path().to_owned()), ..RegistrySettings::default() };
    let registries = Registries::with(&settings, Events::none(), Options { patience: hasty(), aws: no_aws() });
    let found = registries.docker_auth(HOST).await.unwrap().unwrap();
    assert!(found.origin.ends_with("config.json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_taken_on_for_its_registry_alone() {
    let fake = EcrFake::start().await;
    let role = "arn:aws:iam::210987654321:role/push";
    let mut settings = RegistrySettings::default();
    settings.roles.insert(RegistryHost::new(HOST), role.to_owned());
    let aws = AwsSource::Fixed { endpoint: fake.endpoint(), access_key: "AKIAFAKE".into(), secret_key: "fake".into() };
    let registries = Registries::with(&settings, Events::none(), Options { patience: hasty(), aws });
    registries.docker_auth(HOST).await.unwrap().unwrap();
    assert_eq!(fake.calls()[0], format!("AssumeRole {role}"));
    assert_eq!(fake.signed_by(), "ASIAROLE");
    registries.docker_auth(&HOST.replace("eu-west-1", "us-east-1")).await.unwrap().unwrap();
    assert_eq!(fake.signed_by(), "AKIAFAKE");
}

#[tokio::test(flavor = "multi_thread")]
async fn as_a_credential_helper_it_answers_in_dockers_words() {
    let fake = EcrFake::start().await;
    let registries = ecr_registries(&fake);
    let answer = push::login::helper(&registries, &format!("https://{HOST}")).await.unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["Username"], "AWS");
    assert_eq!(answer["ServerURL"], format!("https://{HOST}"));
    assert_eq!(answer["Secret"].as_str().map(str::len), Some(32));
    let error = push::login::helper(&registries, "docker.io").await.unwrap_err().to_string();
    assert_eq!(error, "credentials not found in native keychain");
}

/// The SDK's own way to the fake: variables of the environment, which only a child process can be given.
#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_finds_endpoint_and_credentials_in_the_environment() {
    let fake = EcrFake::start().await;
    fake.add("team/app", false);
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ecr::as_a_child_with_an_environment", "--ignored", "--nocapture"])
        .envs(fake.environment())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(fake.logins(), 1);
}

#[tokio::test]
#[ignore = "run by the_sdk_finds_endpoint_and_credentials_in_the_environment"]
async fn as_a_child_with_an_environment() {
    let registries = Registries::new(&RegistrySettings::default(), Events::none());
    let target = repository(HOST, "team/app").tag("1");
    assert_eq!(push::preflight(&registries, &[target], &PushSettings::default()).await.unwrap().push.len(), 1);
}
