//! Credential helpers, found on the PATH: which only a child process can be given.

use std::os::unix::fs::PermissionsExt as _;

use hakobi::event::{Event, Events};
use hakobi::registry::{Credential, Registries};
use hakobi::settings::RegistrySettings;

const HELPER: &str = r#"#!/bin/sh
read -r server
case "$1 $server" in
  "get good.example") echo '{"ServerURL":"good.example","Username":"u","Secret":"p"}' ;;
  "get token.example") echo '{"Username":"<token>","Secret":"refresh"}' ;;
  "get none.example") echo 'credentials not found in native keychain'; exit 1 ;;
  "get https://index.docker.io/v1/") echo '{"Username":"hub","Secret":"p"}' ;;
  *) echo 'the vault is locked'; exit 1 ;;
esac
"#;

#[tokio::test]
async fn helpers_are_run_as_docker_runs_them() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("docker-credential-fake");
    std::fs::write(&program, HELPER).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(directory.path().join("config.json"), r#"{"credsStore":"fake","credHelpers":{"gone.example":"absent"}}"#)
        .unwrap();
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helpers::as_a_child_with_a_path", "--ignored", "--nocapture"])
        .env("PATH", format!("{}:/usr/bin:/bin", directory.path().display()))
        .env("TEST_DOCKER_CONFIG", directory.path())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
#[ignore = "run by helpers_are_run_as_docker_runs_them"]
async fn as_a_child_with_a_path() {
    let directory = std::env::var_os("TEST_DOCKER_CONFIG").expect("run by its parent");
    let (events, mut told) = Events::channel();
    let settings = RegistrySettings { docker_config: Some(directory.into()), ..RegistrySettings::default() };
    let registries = Registries::new(&settings, events);
    let basic = |user: &str| Some(Credential::Basic { username: user.into(), password: "p".into() });
    for (host, expected) in [
        ("good.example", basic("u")),
        ("token.example", Some(Credential::IdentityToken("refresh".into()))),
        ("none.example", None),
        ("docker.io", basic("hub")),
    ] {
        assert_eq!(registries.docker_auth(host).await.unwrap().map(|found| found.credential), expected, "{host}");
    }
    assert!(told.try_recv().is_err());
    // What fails is told, and the run goes on without a login.
    for (host, words) in [("bad.example", "the vault is locked"), ("gone.example", "docker-credential-absent")] {
        assert_eq!(registries.docker_auth(host).await.unwrap(), None);
        assert!(matches!(told.try_recv(), Ok(Event::Warning(text)) if text.contains(words) && text.contains(host)), "{host}");
    }
}
