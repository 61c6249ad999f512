//! Who may use the cache in S3: roles with the policies that the documents print, credentials that expire, and a wrong clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use aws_sdk_s3::Client;
use hakobi::aws::{self, AwsSource, Wanted};

use crate::fault_proxy::Fault;
use crate::machine::Run;
use crate::s3::policy::{Asked, Role};
use crate::s3::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use crate::world::{Built, Place, World, all_files, runtime};

const COMMAND: &str = "FROM BASE\nRUN sum /deps\nCOPY src /app/src\nRUN sum /built\n";

/// The access key of the job that builds main.
const MAIN: &str = "AKIAHAKOBITESTMAIN";

/// The access key of the job that builds pull request 7.
const PULL: &str = "AKIAHAKOBITESTPULL";

fn server(world: &World) -> &S3Server {
    &world.s3.as_ref().unwrap().0
}

/// Returns a world with both roles. One file is so large that its layer has checksums of its parts.
fn world() -> World {
    let world = World::new(COMMAND).with_cache(Place::S3);
    server(&world).allow(Role::trusted(MAIN));
    server(&world).allow(Role::pull_request(PULL, "app"));
    world.write("src/main", "one\n");
    let noise: Vec<u8> = std::iter::repeat_with(rand::random).take(3 << 20).collect();
    fs::write(world.machine.folder().join("src/large"), noise).unwrap();
    world
}

/// Builds on a new machine as GitHub's job with this key.
#[track_caller]
fn build_as(world: &World, key: &str) -> Built {
    world.wiped().daemon.ran.lock().unwrap().clear();
    let mut command = world.command("build", &["--push", "--report", "../report.json"]);
    command.env("AWS_ACCESS_KEY_ID", key).env("GITHUB_ACTIONS", "true");
    match key {
        PULL => command.envs([("GITHUB_REF", "refs/pull/7/merge"), ("GITHUB_REF_NAME", "7/merge"), ("GITHUB_BASE_REF", "main")]),
        _ => command.envs([("GITHUB_REF", "refs/heads/main"), ("GITHUB_REF_NAME", "main")]),
    };
    let run = Run::of(&mut command).exits(0);
    world.right(run)
}

fn asked_by(world: &World, key: &str) -> Vec<Asked> {
    server(world).asked().into_iter().filter(|asked| asked.access_key == key).collect()
}

fn is_of_pull_request(key: &str) -> bool {
    ["app/steps/pr-7/", "app/refs/pr-7/", "app/uses/pr-7/"].iter().any(|own| key.starts_with(own))
}

fn ran_command(built: &Built, command: &str) -> bool {
    built.ran.iter().any(|step| step.contains(command))
}

#[test]
fn a_pull_request_builds_warm_and_writes_its_own_scope() {
    let world = world();
    assert_eq!(build_as(&world, MAIN).tier(), "cold");
    let same = build_as(&world, PULL);
    assert_eq!((same.tier(), same.warnings()), ("unchanged", Vec::new()));
    world.write("src/main", "two\n");
    let changed = build_as(&world, PULL);
    assert_eq!((changed.tier(), changed.warnings()), ("partial", Vec::new()));
    assert!(!ran_command(&changed, "sum /deps") && ran_command(&changed, "sum /built"), "{:?}", changed.ran);
    let asked = asked_by(&world, PULL);
    let refused: Vec<_> = asked.iter().filter(|asked| asked.is_refused).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    let written = asked.iter().filter(|asked| !matches!(asked.action, "s3:GetObject" | "s3:ListBucket"));
    let (own, shared): (Vec<_>, Vec<_>) = written.partition(|asked| is_of_pull_request(&asked.key));
    assert!(!own.is_empty());
    let is_shared = |key: &str| key.starts_with("app/blobs/") || key.starts_with("app/sums/");
    assert!(shared.iter().all(|asked| is_shared(&asked.key)), "{shared:#?}");
    // Its own records make its next build unchanged.
    assert_eq!(build_as(&world, PULL).tier(), "unchanged");
}

#[test]
fn main_never_reads_what_a_pull_request_wrote() {
    let world = world();
    build_as(&world, MAIN);
    world.write("src/main", "two\n");
    build_as(&world, PULL);
    let before = asked_by(&world, MAIN).len();
    let merged = build_as(&world, MAIN);
    assert_eq!((merged.tier(), merged.warnings()), ("partial", Vec::new()));
    assert!(ran_command(&merged, "sum /built"), "{:?}", merged.ran);
    let asked = asked_by(&world, MAIN).split_off(before);
    let foreign: Vec<_> = asked.iter().filter(|asked| asked.key.contains("/pr-")).collect();
    assert!(foreign.is_empty(), "{foreign:#?}");
    // What it read of the shared blobs it named itself, by digest. The poisoned blobs below show that this is safe.
}

/// A client without hakobi's checks, with the key of the pull request.
fn attacker(world: &World) -> Client {
    let (access_key, secret_key) = (PULL.to_owned(), SECRET_KEY.to_owned());
    let source = AwsSource::Fixed { endpoint: server(world).endpoint(), access_key, secret_key };
    let wanted = Wanted { region: Some("eu-west-1".to_owned()), ..Wanted::default() };
    let shared = runtime().block_on(aws::config(&source, &wanted));
    Client::from_conf(aws_sdk_s3::config::Builder::from(&shared).force_path_style(true).build())
}

fn put(client: &Client, key: &str, bytes: Vec<u8>) -> Result<(), String> {
    let put = client.put_object().bucket(BUCKET).key(key).body(bytes.into()).send();
    runtime().block_on(put).map(drop).map_err(|error| format!("{error:?}"))
}

/// Returns the objects of the cache by their keys.
fn objects(world: &World) -> BTreeMap<String, (PathBuf, Vec<u8>)> {
    let root = server(world).objects();
    let files = all_files(&root.join("app")).into_iter();
    files
        .map(|path| (path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), (path.clone(), fs::read(path).unwrap())))
        .collect()
}

#[test]
fn the_key_of_a_pull_request_cannot_change_what_main_has() {
    let world = world();
    build_as(&world, MAIN);
    let (client, before) = (attacker(&world), objects(&world));
    let is_mains = |key: &&String| !key.starts_with("app/blobs/") && !key.starts_with("app/sums/");
    let mut keys: Vec<String> = before.keys().filter(is_mains).cloned().collect();
    for kind in ["app/hakobi.json", "app/steps/main/", "app/refs/main/", "app/uses/main/"] {
        assert!(keys.iter().any(|key| key.starts_with(kind)), "{kind}: {keys:#?}");
    }
    let new = ["prune/marks.json", "steps/main/new", "refs/main/new", "uses/main/new", "steps/branch-pr-8/new"];
    keys.extend(new.map(|name| format!("app/{name}")));
    for key in &keys {
        let refused = put(&client, key, b"forged".to_vec()).unwrap_err();
        assert!(refused.contains("AccessDenied"), "{key}: {refused}");
    }
    for key in before.keys() {
        let deleted = runtime().block_on(client.delete_object().bucket(BUCKET).key(key).send());
        assert!(deleted.is_err(), "{key}");
    }
    assert!(objects(&world) == before);
    assert_eq!(build_as(&world, MAIN).tier(), "unchanged");
}

/// The policy lets a pull request write all blobs: writes wrong bytes under each digest, with checksums that fit these bytes.
fn poison(world: &World) {
    let client = attacker(world);
    for (key, (_, mut bytes)) in objects(world) {
        let Some(hex) = key.strip_prefix("app/blobs/sha256/") else { continue };
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        if bytes.len() > 1 << 20 {
            let crc32: Vec<u32> = bytes
                .chunks(1 << 20)
                .map(|part| {
                    let mut crc = flate2::Crc::new();
                    crc.update(part);
                    crc.sum()
                })
                .collect();
            let sums = serde_json::json!({ "version": 1, "size": bytes.len(), "part": 1 << 20, "crc32": crc32 });
            put(&client, &format!("app/sums/sha256/{hex}"), sums.to_string().into_bytes()).unwrap();
        }
        put(&client, &key, bytes).unwrap();
    }
}

#[test]
fn a_blob_that_a_pull_request_poisoned_is_never_used() {
    let world = world();
    build_as(&world, MAIN);
    for source in ["one\n", "three\n"] {
        world.write("src/main", source);
        // Main will need the blobs of this build.
        build_as(&world, PULL);
        poison(&world);
        // The repository of the image has none of the layers, so they must come out of the cache.
        world.registry.forget("app");
        let poisoned = build_as(&world, MAIN);
        assert!(!poisoned.warnings().is_empty(), "{source}: {}", poisoned.stderr);
        world.registry.forget("app");
        build_as(&world, MAIN);
    }
    let verify = || {
        let mut command = world.machine.command(env!("CARGO_BIN_EXE_hakobi"));
        command.env("AWS_ACCESS_KEY_ID", MAIN).args(["cache", "verify", "--repair", "--cache", "s3://cache/app"]);
        Run::of(&mut command)
    };
    verify();
    verify().exits(0);
    build_as(&world, MAIN);
    world.registry.forget("app");
    let mended = build_as(&world, MAIN);
    assert_eq!((mended.tier(), mended.warnings()), ("unchanged", Vec::new()));
}

/// Returns a world whose AWS profile asks a program for credentials. The program gives another access key each time.
fn world_with_program(expiration: &str) -> World {
    let mut world = World::new(COMMAND).with_cache(Place::S3);
    world.write("src/main", "one\n");
    let home = world.machine.home().to_owned();
    let (program, given, profile) = (home.join("give-keys"), home.join("given"), home.join("aws-config"));
    fs::create_dir(&given).unwrap();
    // A directory is created by one process only, so no two get the same number.
    let script = format!(
        "#!/bin/sh\nnumber=$(($(ls '{given}' | wc -l) + 1))\nwhile ! mkdir '{given}'/$number 2>/dev/null; do number=$((number + 1)); done\n\
         printf '{{\"Version\":1,\"AccessKeyId\":\"{ACCESS_KEY}%s\",\"SecretAccessKey\":\"{SECRET_KEY}\"{expiration}}}' $number\n",
        given = given.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&profile, format!("[default]\ncredential_process = {}\n", program.display())).unwrap();
    world.machine.unset("AWS_ACCESS_KEY_ID");
    world.machine.unset("AWS_SECRET_ACCESS_KEY");
    world.machine.put("AWS_CONFIG_FILE", profile.to_str().unwrap());
    server(&world).expire_after(&format!("{ACCESS_KEY}1"), 3);
    world
}

fn keys_of(world: &World) -> BTreeSet<String> {
    server(world).asked().into_iter().map(|asked| asked.access_key).collect()
}

/// The SDK renews credentials some seconds before they expire. These are always that close to it.
#[test]
fn credentials_are_renewed_during_a_run() {
    let world = world_with_program("'\"$(date -u -d '+3 seconds' '+,\"Expiration\":\"%Y-%m-%dT%H:%M:%SZ\"')\"'");
    let built = world.build(&[]);
    assert_eq!((built.tier(), built.warnings()), ("cold", Vec::new()));
    let keys = keys_of(&world);
    assert!(keys.len() > 1 && keys.contains(&format!("{ACCESS_KEY}1")), "{keys:?}");
    assert!(server(&world).asked().iter().all(|asked| !asked.is_refused));
    assert_eq!(world.wiped().build(&[]).tier(), "unchanged");
}

/// The SDK cannot know when these credentials expire, so it does not renew them.
#[test]
fn credentials_without_a_renewal_cost_the_cache() {
    let world = world_with_program("");
    let built = world.build(&[]);
    assert!(built.warnings().iter().all(|warning| warning.contains("ExpiredToken")), "{:#?}", built.warnings());
    assert!(!built.warnings().is_empty() && built.stderr.contains("renew the AWS credentials"), "{}", built.stderr);
    assert_eq!(keys_of(&world).len(), 1);
}

#[test]
fn a_wrong_clock_costs_the_cache_and_is_named() {
    let world = World::new(COMMAND).with_cache(Place::S3);
    world.write("src/main", "one\n");
    world.build(&[]);
    world.s3.as_ref().unwrap().1.set(|_| Some(Fault::Skewed(Duration::from_secs(3600))));
    let built = world.wiped().build(&[]);
    assert_eq!(built.warnings().len(), 1, "{:#?}", built.warnings());
    assert!(built.warnings()[0].contains("RequestTimeTooSkewed"), "{:#?}", built.warnings());
    assert!(built.stderr.contains("set this machine's clock: it is off by 60 minutes"), "{}", built.stderr);
    let required = world.wiped().try_build(&["--cache-required"]).exits(4);
    assert!(required.stderr.contains("set this machine's clock: it is off by 60 minutes"), "{}", required.stderr);
}
