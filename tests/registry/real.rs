//! Against Debian's docker-registry.

use std::sync::Arc;

use hakobi::domain::Digest;
use hakobi::event::Events;
use hakobi::push::{self, Pusher};
use hakobi::registry::{Kind, Put, Registries};
use hakobi::settings::{IfTagExists, PushSettings, RegistrySettings};
use hakobi::transfer::{BytesSource, Spool};
use tokio::io::AsyncReadExt as _;

use super::fixtures::*;
use crate::support::parts::{part, unique};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pushed_and_read_back() {
    let (registries, _config, host) = logged_in();
    let repository = repository(&host, &unique("push"));
    let client = registries.repository(&repository);
    let image = image(3 << 20);
    let (layer, bytes) = &image.blobs[0];
    assert_eq!(client.manifest("1").await.unwrap(), None);
    assert_eq!(client.head_manifest("1").await.unwrap(), None);
    assert!(client.present(std::slice::from_ref(&layer.digest)).await.unwrap().is_empty());
    push(&registries, &image, &repository, &["1", "2"]).await.unwrap();
    assert_eq!(client.present(std::slice::from_ref(&layer.digest)).await.unwrap().get(&layer.digest), Some(&layer.size));
    for reference in ["1", "2", &image.manifest.digest().to_string()] {
        assert_eq!(client.manifest(reference).await.unwrap().as_ref(), Some(&image.manifest));
        assert_eq!(client.head_manifest(reference).await.unwrap(), Some(image.manifest.descriptor()));
    }
    assert_eq!(client.read_blob(&layer.digest, 4 << 20).await.unwrap(), bytes);
    assert_eq!(client.read_blob(&layer.digest, 1 << 20).await.unwrap_err().kind, Kind::TooLarge);
    let mut rest = Vec::new();
    client.open_blob(&layer.digest, Some(layer.size), 1 << 20).await.unwrap().read_to_end(&mut rest).await.unwrap();
    assert!(rest == bytes[1 << 20..]);
    let absent = client.open_blob(&Digest::hash(b"absent"), None, 0).await.err().map(|error| error.kind);
    assert_eq!(absent, Some(Kind::NotFound));
    assert_eq!(client.put_manifest(&image.manifest, "1").await.unwrap(), Put::Pushed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_follows_a_blob_that_is_still_arriving() {
    let registries = registries();
    let host = part("HAKOBI_TEST_REGISTRY_OPEN");
    let targets = vec![repository(&host, &unique("grow-a")), repository(&host, &unique("grow-b"))];
    let pusher = Pusher::new(registries.clone(), targets.clone(), Events::none());
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, spool) = Spool::create(directory.path()).unwrap();
    pusher.upload(Arc::new(spool), None);
    let bytes = noise(2 << 20);
    for part in bytes.chunks(100_000) {
        writer.write(part).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    }
    let identity = writer.finish();
    let pushed = pusher.finish_blobs().await.unwrap();
    assert_eq!((pushed.total().pushed, pushed.total().bytes), (2, 2 * identity.size));
    assert!(pusher.has(&identity.digest).await.unwrap());
    for target in &targets {
        assert!(registries.repository(target).has(&identity.digest).await.unwrap());
    }
    // A blob that is there is not sent again, and one that fails on this side says so.
    pusher.upload(Arc::new(BytesSource::new(noise(10))), None);
    let (writer, spool) = Spool::create(directory.path()).unwrap();
    pusher.upload(Arc::new(spool), None);
    writer.fail(&std::io::Error::other("the daemon went away"));
    let error = pusher.finish_blobs().await.unwrap_err().error.to_string();
    assert!(error.contains("the daemon went away"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_the_same_registry_are_mounted_and_known_ones_left() {
    let (registries, _config, host) = logged_in();
    let from = repository(&host, &unique("from"));
    let to = repository(&host, &unique("to"));
    let image = image(100_000);
    push(&registries, &image, &from, &["1"]).await.unwrap();
    for expected in [(0, 2, 0), (0, 0, 2)] {
        let pusher = Pusher::new(registries.clone(), vec![to.clone(), to.clone()], Events::none());
        for (blob, _) in &image.blobs {
            pusher.copy(blob, &from);
            pusher.copy(blob, &from);
        }
        let total = pusher.finish_blobs().await.unwrap().total();
        assert_eq!((total.pushed, total.mounted, total.already_there), expected);
        assert_eq!(total.bytes, 0);
    }
}

/// A copy from the target itself would take the blob on and so keep out the upload that brings it.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_on_its_way_is_not_copied_from_where_it_goes() {
    let (registries, _config, host) = logged_in();
    let target = repository(&host, &unique("itself"));
    let image = image(100_000);
    let pusher = Pusher::new(registries.clone(), vec![target.clone()], Events::none());
    for (blob, bytes) in &image.blobs {
        pusher.copy(blob, &target);
        pusher.upload(Arc::new(BytesSource::new(bytes.clone())), None);
    }
    let total = pusher.finish_blobs().await.unwrap().total();
    assert_eq!(total.pushed, image.blobs.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_login_the_error_says_how_to_log_in() {
    let host = part("HAKOBI_TEST_REGISTRY");
    let wrong = docker_config(&[(&host, "AWS", "wr0ng")]);
    for settings in [
        RegistrySettings::default(),
        RegistrySettings { docker_config: Some(wrong.path().to_owned()), ..RegistrySettings::default() },
    ] {
        let registries = Registries::new(&settings, Events::none());
        let target = repository(&host, &unique("anon")).tag("1");
        let error = push::preflight(&registries, &[target], &PushSettings::default()).await.unwrap_err();
        assert_eq!(error.hint_text(), Some(&*format!("log in with `docker login {host}`")), "{error}");
        assert!(!error.to_string().contains("wr0ng"));
        assert!(push::login::check(&registries, &repository(&host, "x").host).await.is_err());
    }
    let (registries, _config, host) = logged_in();
    let found = push::login::check(&registries, &repository(&host, "x").host).await.unwrap().unwrap();
    assert!(found.origin.ends_with("config.json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn preflight_leaves_nothing_behind_and_sees_tags() {
    let (registries, _config, host) = logged_in();
    let repository = repository(&host, &unique("preflight"));
    let targets = [repository.tag("1"), repository.tag("2")];
    let ask = |if_tag_exists| {
        let (registries, targets) = (registries.clone(), targets.clone());
        async move { push::preflight(&registries, &targets, &PushSettings { if_tag_exists, ..PushSettings::default() }).await }
    };
    assert_eq!(ask(IfTagExists::Fail).await.unwrap().push, targets);
    let image = image(1000);
    push(&registries, &image, &repository, &["1"]).await.unwrap();
    assert_eq!(ask(IfTagExists::Overwrite).await.unwrap().push, targets);
    assert!(ask(IfTagExists::Fail).await.unwrap_err().to_string().contains(&targets[0].to_string()));
    let skipped = ask(IfTagExists::Skip).await.unwrap();
    assert_eq!(skipped.push, targets[1..]);
    assert_eq!(skipped.skipped, [(targets[0].clone(), image.manifest.descriptor())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn promote_copies_across_registries_and_keeps_what_was_there() {
    let (registries, _config, host) = logged_in();
    let open = part("HAKOBI_TEST_REGISTRY_OPEN");
    let from = repository(&open, &unique("promote-from"));
    let (one, two, old) = (image(200_000), image(1), image(2));
    push(&registries, &one, &from, &["one"]).await.unwrap();
    push(&registries, &two, &from, &["two"]).await.unwrap();
    let index = index(&[&one, &two]);
    registries.repository(&from).put_manifest(&index, "all").await.unwrap();
    let to = repository(&host, &unique("promote-to"));
    push(&registries, &old, &to, &["prod"]).await.unwrap();
    let targets = [to.tag("prod"), to.tag("new"), from.tag("released")];
    for round in 0..2 {
        let done =
            push::promote(&registries, &Events::none(), &from.tag("all"), &targets, &PushSettings::default()).await.unwrap();
        assert!(done.iter().all(|promotion| promotion.state.is_ok() && promotion.digest == index.digest()), "{done:?}");
        let kept = done[0].kept_as.clone();
        if round == 0 {
            assert_eq!(done[0].previous, Some(old.manifest.digest()));
            let kept = kept.expect("kept").tag.expect("a tag");
            assert_eq!(kept, format!("prod-previous-{}", &old.manifest.digest().hex()[..12]));
            assert_eq!(registries.repository(&to).manifest(&kept).await.unwrap(), Some(old.manifest.clone()));
        } else {
            assert_eq!((done[0].previous.clone(), kept), (Some(index.digest()), None));
        }
    }
    for tag in ["prod", "new"] {
        assert_eq!(registries.repository(&to).manifest(tag).await.unwrap(), Some(index.clone()));
    }
    let layer = &one.blobs[0];
    assert_eq!(registries.repository(&to).read_blob(&layer.0.digest, 1 << 20).await.unwrap(), layer.1);
    let error = push::promote(&registries, &Events::none(), &from.tag("absent"), &targets, &PushSettings::default()).await;
    assert!(error.unwrap_err().to_string().contains("no image "));
}

#[tokio::test(flavor = "multi_thread")]
async fn login_writes_config_json_only_when_asked_and_keeps_the_rest() {
    let (registries, _config, host) = logged_in();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    std::fs::write(&file, r#"{"auths":{"other.example":{"auth":"dTpw"}},"psFormat":"x","credHelpers":{"a.example":"b"}}"#)
        .unwrap();
    let written = push::login::write(&registries, &repository(&host, "x").host, directory.path()).await.unwrap();
    assert_eq!(written, file);
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!((&config["psFormat"], &config["credHelpers"]["a.example"]), (&"x".into(), &"b".into()));
    assert_eq!(config["auths"]["other.example"]["auth"], "dTpw");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o77, 0);
    let settings = RegistrySettings { docker_config: Some(directory.path().to_owned()), ..RegistrySettings::default() };
    let registries = Registries::new(&settings, Events::none());
    assert!(push::login::check(&registries, &repository(&host, "x").host).await.unwrap().is_some());
    std::fs::write(&file, r#"{"credsStore":"desktop"}"#).unwrap();
    let (registries, _config, host) = logged_in();
    let error = push::login::write(&registries, &repository(&host, "x").host, directory.path()).await.unwrap_err();
    assert!(error.to_string().contains("docker-credential-desktop"), "{error}");
}
