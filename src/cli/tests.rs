//! Resolves whole command lines to settings.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use super::*;
use crate::error::Kind;
use crate::settings::{BuildSettings, CacheFrom, Compression, IfTagExists, LoginSettings};

const COMMIT: &str = "0123456789012345678901234567890123456789";

/// A working directory with a Dockerfile, and variables.
struct Place {
    folder: tempfile::TempDir,
    environment: Environment,
}

fn place(variables: &[(&str, &str)]) -> Place {
    let folder = tempfile::tempdir().expect("a directory");
    std::fs::write(folder.path().join("Dockerfile"), "FROM scratch").expect("written");
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let environment = Environment { variables, current_dir: folder.path().to_owned(), ..Environment::default() };
    Place { folder, environment }
}

impl Place {
    fn with_docker_config(mut self, text: &str) -> Self {
        std::fs::create_dir(self.folder.path().join("docker")).expect("made");
        std::fs::write(self.folder.path().join("docker/config.json"), text).expect("written");
        self.environment.variables.insert("DOCKER_CONFIG".into(), "docker".into());
        self
    }

    fn run(&self, line: &str) -> Result<Settings, Outcome> {
        parse(std::iter::once("hakobi").chain(line.split_whitespace()).map(OsString::from), &self.environment)
    }

    fn build(&self, line: &str) -> (Settings, BuildSettings) {
        let settings = match self.run(&format!("build {line}")) {
            Ok(settings) => settings,
            Err(outcome) => panic!("{line}: {outcome:?}"),
        };
        match settings.command.clone() {
            Command::Build(build) => (settings, *build),
            other => panic!("{line}: {other:?}"),
        }
    }

    /// Returns the error of an invalid command line: message and hint, or clap's text.
    fn refused(&self, line: &str) -> String {
        match self.run(line) {
            Ok(settings) => panic!("{line}: {settings:?}"),
            Err(Outcome::Shown { text, exit_code: 2 }) => text,
            Err(Outcome::Failed(error)) if error.kind() == Kind::Usage => {
                format!("{error}\n{}", error.hint_text().unwrap_or_default())
            }
            Err(other) => panic!("{line}: {other:?}"),
        }
    }
}

fn texts<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn the_least_build_loads() {
    let place = place(&[]);
    let (settings, build) = place.build(".");
    assert_eq!((build.push, build.load), (false, true));
    assert_eq!(build.context, crate::settings::ContextSource::Directory(place.folder.path().to_owned()));
    assert_eq!(build.call, "build");
    assert_eq!((settings.progress, settings.daemon.url.as_str()), (ProgressMode::Auto, daemon::DEFAULT_URL));
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
}

#[test]
fn refused_command_lines() {
    let place = place(&[]);
    for (line, word) in [
        ("build", "requires a build context"),
        ("build . --push", "requires a name"),
        ("build . -o type=registry", "requires a name"),
        ("build . -q --progress plain", "cannot be used together"),
        ("build . --nonsense", "unexpected argument '--nonsense'"),
        ("build . --strategy mine", "invalid value 'mine'"),
        ("build . extra", "unexpected argument 'extra'"),
        ("build . --progress loud", "invalid value 'loud'"),
        ("build . --push=maybe", "invalid value 'maybe'"),
        ("build . -t App", "lower case"),
        ("build . -t app@sha256:0123456789012345678901234567890123456789012345678901234567890123", "names a digest"),
        ("build . --provenance=true", "not supported"),
        ("build . --provenance mode=max", "not supported"),
        ("build . --sbom true", "not supported"),
        ("build . --attest type=sbom", "not supported"),
        ("build . --attest disabled=true", "the type is missing"),
        ("build . --builder other", "supports only the Docker daemon's own BuildKit"),
        ("build . --platform linux", "--platform linux"),
        ("build . --build-arg =x", "the name before `=` is missing"),
        ("build . --label =x", "the name before `=` is missing"),
        ("build . --annotation x", "NAME=VALUE"),
        ("build . --annotation nowhere:x=y", "`nowhere`"),
        ("build . --call guess", "`guess`"),
        ("build . --iidfile id -o out", "--iidfile"),
        ("build . --tag-commit", "requires a name"),
        ("build . -t app --tag-commit", "cannot determine the commit"),
        ("build . --build-arg BUILDKIT_SYNTAX=", "BUILDKIT_SYNTAX is empty"),
        ("build . --secret id=x,src=nothere", "nothere"),
        ("build . --registry-role h.x", "HOST=ARN"),
        ("build . --registry-role h.x=role", "not the ARN"),
        ("build . --registry-mirror docker.io=mirror", "not an http(s) URL"),
        ("build . --insecure-registry word", "invalid registry"),
        ("build . --if-tag-exists maybe", "invalid value 'maybe'"),
        ("build . --create-repository=scam", "`scam`"),
        ("-H npipe:////./pipe/x build .", "named pipes are not supported"),
        ("push", "<IMAGE>"),
        ("push App", "lower case"),
        ("promote app:1", "<TAG>"),
        ("promote app:1 h.x/app", "does not name a tag"),
        ("login", "<HOST>"),
        ("login word", "invalid registry"),
        ("completions dos", "invalid value 'dos'"),
        ("man dos", "unknown command `dos` of `hakobi`"),
        ("man cache dos", "unknown command `dos` of `hakobi cache`"),
        ("bild .", "unrecognized subcommand 'bild'"),
        ("", "Usage:"),
    ] {
        let said = place.refused(line);
        assert!(said.contains(word), "{line}: {said}");
    }
}

#[test]
fn tags_once_each_with_the_commit_in_every_repository() {
    let place = place(&[("GITHUB_ACTIONS", "true"), ("GITHUB_SHA", COMMIT)]);
    let (_, build) = place.build("-t h.x/a:1 --tag h.x/a:2 -t app -t app:latest --tag-commit --push .");
    let expected = [
        "h.x/a:1".to_owned(),
        "h.x/a:2".into(),
        "docker.io/library/app:latest".into(),
        format!("h.x/a:{COMMIT}"),
        format!("docker.io/library/app:{COMMIT}"),
    ];
    assert_eq!(texts(&build.tags), expected);
    assert_eq!((build.push, build.load), (true, false));
    let (_, named) = place.build("-o type=image,name=h.x/b:3,push=true .");
    assert_eq!(texts(&named.tags), ["h.x/b:3"]);
}

#[test]
fn build_arguments_come_from_flag_environment_and_configuration() {
    let place = place(&[("VALUE", "v"), ("EMPTY", ""), ("SOURCE_DATE_EPOCH", "7")])
        .with_docker_config(r#"{"proxies":{"default":{"httpProxy":"http://p","httpsProxy":"http://s","noProxy":"n"}}}"#);
    let (_, build) =
        place.build("--build-arg A=b=c --build-arg VALUE --build-arg EMPTY --build-arg GONE --build-arg https_proxy=mine .");
    let expected: BTreeMap<String, String> = [
        ("A", "b=c"),
        ("VALUE", "v"),
        ("EMPTY", ""),
        ("https_proxy", "mine"),
        ("HTTP_PROXY", "http://p"),
        ("NO_PROXY", "n"),
        ("SOURCE_DATE_EPOCH", "7"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    assert_eq!(build.build_args, expected);
    let (_, own) = place.build("--build-arg SOURCE_DATE_EPOCH=8 .");
    assert_eq!(own.build_args.get("SOURCE_DATE_EPOCH").map(String::as_str), Some("8"));
}

#[test]
fn a_flag_is_above_its_variable() {
    let place = place(&[
        ("HAKOBI_TAG", "h.x/a:1\nh.x/b:2\n"),
        ("HAKOBI_PUSH", "true"),
        ("HAKOBI_TARGET", "from-variable"),
        ("HAKOBI_IF_TAG_EXISTS", "skip"),
        ("HAKOBI_COMPRESSION", "zstd:5"),
        ("HAKOBI_HOST", "tcp://h:1"),
        ("HAKOBI_NO_CACHE", ""),
        ("HAKOBI_CREATE_REPOSITORY", "scan"),
    ]);
    let (settings, build) = place.build(".");
    assert_eq!(texts(&build.tags), ["h.x/a:1", "h.x/b:2"]);
    assert!(build.push && !build.load);
    assert_eq!(build.target.as_deref(), Some("from-variable"));
    assert_eq!(build.push_settings.if_tag_exists, IfTagExists::Skip);
    assert_eq!(build.push_settings.compression, Compression::Zstd(5));
    assert!(build.push_settings.create_repository.is_some_and(|options| options.scan_on_push));
    assert_eq!(settings.daemon.url, "tcp://h:1");
    assert!(!build.frontend_options.contains_key("no-cache"), "an empty variable is none");
    let (settings, build) =
        place.build("-t h.x/c:3 --push=false --target own --if-tag-exists=fail --create-repository=false -H tcp://o:2 .");
    assert_eq!(texts(&build.tags), ["h.x/c:3"]);
    assert!(!build.push && build.load);
    assert_eq!(build.target.as_deref(), Some("own"));
    assert_eq!((build.push_settings.if_tag_exists, build.push_settings.create_repository), (IfTagExists::Fail, None));
    assert_eq!(settings.daemon.url, "tcp://o:2");
}

#[test]
fn a_wrong_variable_is_named() {
    let said = place(&[("HAKOBI_IF_TAG_EXISTS", "maybe")]).refused("build .");
    assert!(said.contains("comes from the environment variable HAKOBI_IF_TAG_EXISTS"), "{said}");
}

#[test]
fn the_values_of_variables_are_not_in_the_help() {
    let place = place(&[("HAKOBI_SECRET", "hidden"), ("HAKOBI_BUILD_ARG", "hidden")]);
    let Err(Outcome::Shown { text, exit_code: 0 }) = place.run("build --help") else { panic!("no help") };
    assert!(!text.contains("hidden"), "{text}");
}

#[test]
fn what_shows_the_run() {
    for (variables, line, expected) in [
        (&[][..], "", Some(ProgressMode::Auto)),
        (&[], "-q", Some(ProgressMode::Quiet)),
        (&[], "-q --progress quiet", Some(ProgressMode::Quiet)),
        (&[], "-q --progress=auto", Some(ProgressMode::Quiet)),
        (&[], "-q --progress=tty", None),
        (&[], "--progress rawjson", Some(ProgressMode::RawJson)),
        (&[("BUILDKIT_PROGRESS", "plain")], "", Some(ProgressMode::Plain)),
        (&[("BUILDKIT_PROGRESS", "plain")], "--progress tty", Some(ProgressMode::Tty)),
        (&[("BUILDKIT_PROGRESS", "plain")], "-q", Some(ProgressMode::Quiet)),
        (&[("BUILDKIT_PROGRESS", "odd")], "", None),
        (&[("BUILDKIT_PROGRESS", "plain"), ("HAKOBI_PROGRESS", "tty")], "", Some(ProgressMode::Tty)),
        // The live display would be drawn again for each debug line.
        (&[], "--debug", Some(ProgressMode::Plain)),
        (&[("HAKOBI_LOG", "info")], "", Some(ProgressMode::Plain)),
        (&[], "--debug --progress tty", Some(ProgressMode::Tty)),
        (&[("HAKOBI_PROGRESS", "plain")], "-q", Some(ProgressMode::Quiet)),
        (&[("HAKOBI_QUIET", "1")], "--progress plain", Some(ProgressMode::Plain)),
        (&[("HAKOBI_QUIET", "1"), ("HAKOBI_PROGRESS", "plain")], "", None),
    ] {
        let found = place(variables).run(&format!("build . {line}")).ok().map(|settings| settings.progress);
        assert_eq!(found, expected, "{variables:?} {line}");
    }
}

#[test]
fn colours_need_a_terminal_and_no_objection() {
    let mut place = place(&[]);
    assert!(!place.build(".").0.color);
    place.environment.stderr_is_terminal = true;
    assert!(place.build(".").0.color);
    place.environment.variables.insert("NO_COLOR".into(), "1".into());
    assert!(!place.build(".").0.color);
}

#[test]
fn platforms_by_commas_or_by_dockers_variable() {
    let place = place(&[("DOCKER_DEFAULT_PLATFORM", "linux/arm64")]);
    assert_eq!(texts(&place.build(".").1.platforms), ["linux/arm64"]);
    let (_, build) = place.build("--platform linux/amd64,linux/arm64/v8 --platform linux/arm/v7,linux/amd64 .");
    assert_eq!(texts(&build.platforms), ["linux/amd64", "linux/arm64", "linux/arm/v7"]);
}

#[test]
fn what_has_no_meaning_is_taken_with_or_without_a_word() {
    let place = place(&[("DOCKER_BUILDKIT", "0"), ("BUILDX_BUILDER", "default")]);
    let quiet =
        "--compress --rm --rm=false --force-rm=true --provenance=false --sbom=false --attest type=provenance,disabled=true";
    let (settings, _) = place.build(&format!("{quiet} --builder default ."));
    assert_eq!(settings.warnings.len(), 1, "{:?}", settings.warnings);
    let (settings, _) = place.build("--squash --isolation default --security-opt a --security-opt b -m 1g .");
    assert_eq!(settings.warnings.len(), 5, "{:?}", settings.warnings);
}

#[test]
fn calls() {
    let place = place(&[]);
    for (line, expected) in [
        ("--check", ("check", None, false)),
        ("--call=check", ("check", None, false)),
        ("--call lint", ("check", None, false)),
        ("--call outline,format=json", ("outline", Some("json"), false)),
        ("--call targets,ignorestatus=true", ("targets", None, true)),
    ] {
        let (_, build) = place.build(&format!("{line} --push ."));
        assert_eq!((build.call.as_str(), build.call_format.as_deref(), build.call_ignore_status), expected, "{line}");
        assert!(!build.push && !build.load, "{line}: nothing goes anywhere");
    }
}

#[test]
fn all_other_settings_arrive() {
    let place = place(&[]);
    std::fs::write(place.folder.path().join("token"), "x").expect("written");
    let (settings, build) = place.build(
        "--label a=b --label c --annotation k=v --annotation manifest[linux/amd64],index:o.k=v --target t --network host \
         --secret id=token --build-context src=. --cache-from h.x/a --cache-to type=inline --cache-repository h.x/cache \
         --compression zstd --create-repository --iidfile id --metadata-file m.json --report r.json --load --push -t h.x/a \
         --insecure-registry r.local:5000 --registry-role h.x=arn:aws:iam::1:role/r --registry-mirror docker.io=https://m/x/ .",
    );
    assert_eq!(build.labels, BTreeMap::from([("a".into(), "b".into()), ("c".into(), String::new())]));
    assert_eq!(build.annotations, ["k=v", "manifest[linux/amd64],index:o.k=v"]);
    assert_eq!(
        (build.secrets.len(), build.named_contexts.len(), build.entitlements.as_slice()),
        (1, 1, &["network.host".to_owned()][..])
    );
    assert_eq!(build.cache_from, [CacheFrom::Latest("h.x/a:latest".parse().expect("a reference"))]);
    assert_eq!(build.cache_to.first().map(|entry| entry.kind.as_str()), Some("inline"));
    assert_eq!(build.store.as_ref().map(|store| &*store.shown), Some("oci://h.x/cache"));
    assert_eq!(build.push_settings.compression, Compression::Zstd(3));
    assert!(build.push_settings.create_repository.is_some() && build.push && build.load);
    let file = |name: &str| Some(place.folder.path().join(name));
    assert_eq!((build.iid_file, build.metadata_file, build.files.report), (file("id"), file("m.json"), file("r.json")));
    assert_eq!(settings.registries.insecure.len(), 1);
    assert_eq!(settings.registries.roles.len(), 1);
    assert_eq!(settings.registries.mirrors.values().next().map(String::as_str), Some("https://m/x"));
}

#[test]
fn the_last_of_a_single_flag_counts() {
    assert_eq!(place(&[]).build("--target a --target b .").1.target.as_deref(), Some("b"));
}

#[test]
fn contexts_of_docker() {
    let place = place(&[]).with_docker_config(r#"{"currentContext":"gone"}"#);
    assert!(place.refused("build .").contains("`gone`, named by Docker's config.json"));
    assert!(place.run("build -H unix:///s .").is_ok(), "a host is above a context");
    for line in ["login docker.io", "promote h.x/a:1 prod", "completions bash", "man build"] {
        assert!(place.run(line).is_ok(), "{line} asks no daemon");
    }
    assert!(place.run("build -H unix:///s --builder gone .").is_err(), "with a host, the context in use is `default`");
}

#[test]
fn the_smaller_commands() {
    let place = place(&[]);
    let command = |line: &str| place.run(line).map(|settings| settings.command);
    match command("push app h.x/a:1 app --report r --if-tag-exists=skip") {
        Ok(Command::Push { images, settings, files }) => {
            assert_eq!(texts(&images), ["docker.io/library/app:latest", "h.x/a:1"]);
            assert_eq!((settings.if_tag_exists, files.report), (IfTagExists::Skip, Some(place.folder.path().join("r"))));
        }
        other => panic!("{other:?}"),
    }
    match command("promote h.x/a:1 prod h.y/b:2") {
        Ok(Command::Promote { source, targets, .. }) => {
            assert_eq!(
                (source.to_string().as_str(), texts(&targets)),
                ("h.x/a:1", vec!["h.x/a:prod".into(), "h.y/b:2".to_owned()])
            );
        }
        other => panic!("{other:?}"),
    }
    let host = |name: &str| crate::domain::RegistryHost::new(name);
    assert!(matches!(command("login h.x"), Ok(Command::Login(LoginSettings::Check(found))) if found == host("h.x")));
    assert!(matches!(command("login --write h.x"), Ok(Command::Login(LoginSettings::Write(found))) if found == host("h.x")));
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(
            matches!(command(&format!("completions {shell}")), Ok(Command::Print(text)) if text.contains("if-tag-exists")),
            "{shell}"
        );
    }
}

#[test]
fn by_another_name_it_is_a_credential_helper() {
    let ask = |action: &str, input: &str| {
        let environment = Environment { stdin: Some(input.to_owned()), ..Environment::default() };
        parse(["/usr/bin/docker-credential-hakobi", action].map(OsString::from), &environment).map(|settings| settings.command)
    };
    let get = ask("get", "h.x\n");
    assert!(matches!(&get, Ok(Command::Login(LoginSettings::Helper(host))) if host == "h.x"), "{get:?}");
    assert!(matches!(ask("list", ""), Ok(Command::Print(text)) if text == "{}\n"));
    assert!(ask("get", " ").is_err() && ask("store", "{}").is_err() && ask("erase", "h").is_err() && ask("x", "").is_err());
}

#[test]
fn debug_is_a_level_unless_the_variable_says_more() {
    for (variables, line, expected) in [
        (&[][..], "build .", None),
        (&[], "build --debug .", Some("debug")),
        (&[], "--debug build .", Some("debug")),
        (&[("HAKOBI_DEBUG", "1")], "build .", Some("debug")),
        (&[("HAKOBI_LOG", "info")], "build .", Some("info")),
        (&[("HAKOBI_LOG", "info")], "build --debug .", Some("info")),
    ] {
        let settings = place(variables).run(line).unwrap_or_else(|outcome| panic!("{line}: {outcome:?}"));
        assert_eq!(settings.log.as_deref(), expected, "{variables:?} {line}");
    }
}

#[test]
fn who_writes_the_cache_beside_an_image() {
    let place = place(&[]);
    let cache = |line: &str| {
        let (_, build) = place.build(&format!("{line} ."));
        let store = build.store.expect("a cache");
        (store.shown, store.scope, store.fallbacks, store.mode)
    };
    let of = |shown: &str, scope: &str, fallbacks: &[&str], mode| {
        (shown.to_owned(), scope.to_owned(), fallbacks.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), mode)
    };
    use crate::settings::CacheMode::{ReadOnly, ReadWrite};
    for (line, expected) in [
        ("--cache-from h.x/a --push -t h.x/a", of("oci://h.x/a", "latest", &[], ReadWrite)),
        ("--cache-from h.x/a --push -t h.x/a:branch", of("oci://h.x/a", "latest", &[], ReadOnly)),
        ("--cache-from h.x/a -t h.x/a", of("oci://h.x/a", "latest", &[], ReadOnly)),
        ("--cache-from h.x/a --cache-mode read-write -t h.x/a", of("oci://h.x/a", "latest", &[], ReadWrite)),
        ("--cache-from h.x/a --cache-mode read-only --push -t h.x/a", of("oci://h.x/a", "latest", &[], ReadOnly)),
        ("--cache-from h.x/a --cache-repository h.x/c --push -t h.x/a:1", of("oci://h.x/c", "latest", &[], ReadWrite)),
        ("--cache-from h.x/a --cache-repository h.x/c -t h.x/a:1", of("oci://h.x/c", "latest", &[], ReadOnly)),
        ("--cache-from h.x/a:main --cache-from h.x/a:dev --push -t h.x/a:dev", of("oci://h.x/a", "dev", &["main"], ReadWrite)),
        ("--cache-from h.x/a:dev --cache-from h.x/b --push -t h.x/c", of("oci://h.x/a", "dev", &[], ReadOnly)),
        ("--cache-from h.x/a --cache-scope s --cache-fallback f --push -t h.x/a", of("oci://h.x/a", "s", &["f"], ReadWrite)),
        ("--cache-from h.x/a --cache oci://h.x/c:p --cache-scope s --push -t h.x/a", of("oci://h.x/c:p", "s", &[], ReadWrite)),
    ] {
        assert_eq!(cache(line), expected, "{line}");
    }
    // BuildKit's own caches are BuildKit's.
    let (_, build) = place.build("--cache-from type=registry,ref=h.x/a --push -t h.x/a .");
    assert!(build.store.is_none());
}

#[test]
fn which_mounts_are_carried() {
    use crate::settings::{FileTimes, MountMode, MountSettings};
    let mounts = |line: &str| place(&[]).build(&format!("{line} .")).1.mounts;
    let least = MountSettings {
        mode: MountMode::On,
        times: FileTimes::Kept,
        budget: Duration::from_secs(600),
        most_bytes: 2 << 30,
        most_total: 5 << 30,
        save_failed: false,
        automatic: false,
    };
    for (line, mode, times) in [
        ("--cache c", MountMode::On, FileTimes::Kept),
        ("--cache c --cache-mode read-only", MountMode::ReadOnly, FileTimes::Kept),
        ("--cache c --cache-mode read-only --cache-mounts on", MountMode::ReadOnly, FileTimes::Kept),
        ("--cache c --cache-mounts read-only", MountMode::ReadOnly, FileTimes::Kept),
        ("--cache c --cache-mounts off", MountMode::Off, FileTimes::Own),
        ("--cache c --cache-mounts off --context-times kept", MountMode::Off, FileTimes::Own),
        ("--cache c --context-times own", MountMode::On, FileTimes::Own),
        ("--cache-mode off --cache-mounts on", MountMode::Off, FileTimes::Own),
        ("--cache-from h.x/a -t h.x/a", MountMode::ReadOnly, FileTimes::Kept),
        ("--cache-from h.x/a --push -t h.x/a", MountMode::On, FileTimes::Kept),
        ("--cache-from type=registry,ref=h.x/a", MountMode::Off, FileTimes::Own),
    ] {
        assert_eq!(mounts(line), MountSettings { mode, times, ..least.clone() }, "{line}");
    }
    let line = "--cache c --save-budget 90s --cache-mount-max 1.5g --cache-mounts-max 512m --save-failed-mounts";
    let expected =
        MountSettings { budget: Duration::from_secs(90), most_bytes: 3 << 29, most_total: 512 << 20, save_failed: true, ..least };
    assert_eq!(mounts(line), expected);
    let variables = [
        ("HAKOBI_CACHE", "c"),
        ("HAKOBI_CACHE_MOUNTS", "read-only"),
        ("HAKOBI_CONTEXT_TIMES", "own"),
        ("HAKOBI_SAVE_BUDGET", "90s"),
        ("HAKOBI_CACHE_MOUNT_MAX", "1.5g"),
        ("HAKOBI_CACHE_MOUNTS_MAX", "512m"),
        ("HAKOBI_SAVE_FAILED_MOUNTS", "true"),
    ];
    let by_variables = place(&variables).build(".").1.mounts;
    assert_eq!(by_variables, MountSettings { mode: MountMode::ReadOnly, times: FileTimes::Own, ..expected });
}
