//! Snapshots of the command line's texts: each command's help, and each error with its hint.

use std::ffi::OsString;

use super::{Environment, Outcome, command, parse};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn helps(command: &mut clap::Command, path: &str) {
    let help = command.clone().term_width(100).render_help().to_string();
    insta::assert_snapshot!(format!("help-{}", path.replace(' ', "-")), help);
    for child in command.get_subcommands_mut() {
        let path = format!("{path} {}", child.get_name());
        helps(child, &path);
    }
}

#[test]
fn help_of_every_command() {
    let mut hakobi = command::hakobi();
    hakobi.build();
    helps(&mut hakobi, "hakobi");
    insta::assert_snapshot!("help-credential-helper", command::credential_helper().term_width(100).render_help().to_string());
}

/// Prints the errors of invalid command lines, run in a directory with a few files. `DIGEST` in a line stands for a digest.
fn errors(name: &str, variables: &[(&str, &str)], lines: &[&str]) {
    let folder = tempfile::tempdir().expect("a directory");
    for directory in ["empty", "directory", "odd/Dockerfile"] {
        std::fs::create_dir_all(folder.path().join(directory)).expect("made");
    }
    for (file, text) in [("Dockerfile", "FROM scratch"), ("archive.tar.gz", ""), ("file", "x"), ("docker/config.json", "{")] {
        std::fs::create_dir_all(folder.path().join(file).parent().expect("a parent")).expect("made");
        std::fs::write(folder.path().join(file), text).expect("written");
    }
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let environment = Environment { variables, current_dir: folder.path().to_owned(), ..Environment::default() };
    let mut out = String::new();
    for line in lines {
        let line = line.replace("DIGEST", DIGEST);
        let outcome = parse(std::iter::once("hakobi").chain(line.split_whitespace()).map(OsString::from), &environment);
        let text = match outcome {
            Ok(settings) if !settings.warnings.is_empty() => {
                settings.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect()
            }
            Ok(settings) => panic!("{line}: {settings:?}"),
            Err(Outcome::Shown { text, .. }) => text,
            Err(Outcome::Failed(error)) => {
                let hint = error.hint_text().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
                format!("error: {error}\n{hint}")
            }
        };
        out.push_str(&format!("$ hakobi {line}\n{text}\n"));
    }
    insta::assert_snapshot!(format!("errors-{}", name.replace(' ', "-")), out.replace(&*folder.path().to_string_lossy(), "DIR"));
}

#[test]
fn errors_of_contexts_and_dockerfiles() {
    let lines = [
        "build",
        "build nothere",
        "build s3://bucket/context",
        "build file",
        "build archive.tar.gz",
        "build empty",
        "build odd",
        "build -f nothere .",
        "build -f - -",
        "build . extra",
        "build --nonsense .",
        "build --build-context app .",
        "build --build-context =x .",
        "build --build-context App=. .",
        "build --build-context app=nothere .",
        "build --build-context app=file .",
        "build --build-context app=oci-layout://nothere .",
        "build --build-arg =x .",
        "build --build-arg BUILDKIT_SYNTAX= .",
        "build --label =x .",
        "build --annotation title .",
        "build --annotation =x .",
        "build --annotation nowhere:title=x .",
        "build --platform linux .",
        "build --call guess .",
        "build --call check,ignorestatus=perhaps .",
    ];
    errors("contexts", &[], &lines);
}

#[test]
fn errors_of_outputs() {
    let lines = [
        "build --push .",
        "build --push=maybe .",
        "build -t App .",
        "build -t app@DIGEST .",
        "build --tag-commit .",
        "build -t app --tag-commit .",
        "build -o type=zip .",
        "build -o dest=x,y=z .",
        "build -o type=local .",
        "build -o type=local,dest=- .",
        "build -o type=local,dest=file .",
        "build -o type=tar,dest=directory .",
        "build -o type=image,push=maybe .",
        "build -o type=image,push-by-digest=true .",
        "build -o type=registry,dest=x .",
        "build -o - -o type=oci .",
        "build -o \"type=local .",
        "build --iidfile id -o out .",
        "build --provenance=true .",
        "build --sbom true .",
        "build --attest disabled=true .",
        "build -t h.x/app --image-definitions file.json .",
        "build -t h.x/app --push --container-name web .",
        "build -t h.x/app --push --image-detail other.json .",
    ];
    errors("outputs", &[], &lines);
}

#[test]
fn errors_of_caches() {
    let lines = [
        "build --cache gs://bucket .",
        "build --cache file .",
        "build --cache s3:// .",
        "build --cache s3://bucket/../x .",
        "build --cache s3://bucket?endpoint=http://x .",
        "build --cache s3://bucket?path-style=x .",
        "build --cache s3://bucket?acl=x .",
        "build --cache-mode sometimes .",
        "build --cache-from ref=a .",
        "build --cache-from type=registry .",
        "build --cache-from App .",
        "build --cache-to type=registry,ref .",
        "build --strategy mine .",
        "build --max-age soon .",
        "build --max-age 7d --strategy daemon .",
        "build --no-cache --no-cache-filter a .",
        "build --cache-mounts maybe .",
        "build --context-times new .",
        "build --save-budget long .",
        "build --save-budget -1m .",
        "build --cache-mount-max big .",
        "build --cache-mounts-max 0 .",
        "save app --cache-mode off",
        "save app@DIGEST --cache cache",
        "import https://host/a.tar --cache cache",
        "import s3://bucket --cache cache",
        "export app --cache cache",
        "cache",
    ];
    errors("caches", &[], &lines);
}

#[test]
fn errors_of_run_options() {
    let lines = [
        "build --secret src=token .",
        "build --secret id=a,src=nothere .",
        "build --secret id=a,src=directory .",
        "build --secret id=a,type=x .",
        "build --secret id=a,x=y .",
        "build --secret a .",
        "build --ssh default .",
        "build --ssh a=nothere .",
        "build --ssh a=file --ssh a=file .",
        "build --network bridge .",
        "build --add-host db .",
        "build --allow everything .",
        "build --ulimit nofiles=1 .",
        "build --ulimit nofile .",
        "build --ulimit nofile=3:2 .",
        "build --ulimit nofile=x .",
        "build --shm-size big .",
        "build --resource disk=1 .",
        "build --resource memory .",
        "build --cpu-period x .",
        "build --squash --isolation default --security-opt a -m 1g .",
    ];
    errors("run options", &[], &lines);
}

#[test]
fn errors_of_registries_and_other_commands() {
    let lines = [
        "build --registry-role h.x .",
        "build --registry-role h.x=role .",
        "build --registry-mirror docker.io=mirror .",
        "build --insecure-registry word .",
        "build --if-tag-exists maybe .",
        "build --create-repository=scam .",
        "build --create-repository=scan=perhaps .",
        "build --create-repository=tag=x .",
        "build --create-repository=lifecycle=nothere .",
        "build --create-repository=lifecycle=file .",
        "build --compression brotli .",
        "build -q --progress plain .",
        "build --progress loud .",
        "-H npipe:////./pipe/x build .",
        "-H http://x build .",
        "push",
        "push App",
        "push app@DIGEST",
        "promote app:1",
        "promote app:1 h.x/app",
        "promote app:1 h.x/app@DIGEST",
        "promote app:1 .x",
        "promote --list app@DIGEST",
        "init codebuild --repository h.x/app:1",
        "login",
        "login word",
        "completions dos",
        "man dos",
        "man cache dos",
        "bild .",
    ];
    errors("registries", &[], &lines);
}

#[test]
fn errors_of_variables() {
    for (name, value) in [
        ("HAKOBI_IF_TAG_EXISTS", "maybe"),
        ("BUILDKIT_PROGRESS", "loud"),
        ("DOCKER_CONTEXT", "gone"),
        ("DOCKER_HOST", "http://x"),
        ("DOCKER_DEFAULT_PLATFORM", "linux"),
        ("BUILDX_BUILDER", "other"),
        ("DOCKER_BUILDKIT", "0"),
        ("DOCKER_TLS_VERIFY", "1"),
        ("DOCKER_CONFIG", "docker"),
    ] {
        let mut variables = vec![(name, value)];
        if name == "DOCKER_TLS_VERIFY" {
            variables.extend([("DOCKER_HOST", "tcp://host:2376"), ("DOCKER_CERT_PATH", "certificates")]);
        }
        errors(name, &variables, &["build ."]);
    }
}
