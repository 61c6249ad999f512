//! Secrets of a build are in no command line, and in the environment of no program that hakobi starts.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::s3::{ACCESS_KEY, SECRET_KEY};
use crate::world::{Place, World};

/// The values that must not be seen.
const SECRETS: [&str; 4] = [SECRET_KEY, "canary-file", "canary-variable", "canary-argument"];

/// Writes a program that notes its environment, its command line and that of its parent, and then runs this script.
fn program(path: &Path, seen: &Path, script: &str) {
    let own = format!(
        "#!/bin/sh\nfor of in $$/environ $$/cmdline $PPID/cmdline; do tr '\\0' '\\n' < /proc/$of; done >> '{}'\n{script}\n",
        seen.display()
    );
    fs::write(path, own).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Collects what other processes can see of a run and of all processes below it, until it ends.
fn watch(child: &mut Child, seen: &mut BTreeSet<String>) -> i32 {
    let texts = |pid: u32, file: &str| -> Vec<String> {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        bytes.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    };
    loop {
        seen.extend(texts(child.id(), "cmdline"));
        let mut family = vec![child.id()];
        while let Some(parent) = family.pop() {
            let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
            let children = tasks.flat_map(|task| {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
            });
            for pid in children {
                seen.extend(texts(pid, "cmdline"));
                seen.extend(texts(pid, "environ"));
                family.push(pid);
            }
        }
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn no_process_list_shows_a_secret() {
    let mut world = World::new("FROM BASE\nRUN sum /deps\nCOPY src /app/src\n").with_cache(Place::S3);
    world.write("src/main", "one\n");
    let home = world.machine.home().to_owned();
    let (bin, seen) = (home.join("bin"), home.join("seen"));
    fs::create_dir(&bin).unwrap();
    let keys = format!("echo '{{\"Version\":1,\"AccessKeyId\":\"{ACCESS_KEY}\",\"SecretAccessKey\":\"{SECRET_KEY}\"}}'");
    program(&bin.join("give-keys"), &seen, &keys);
    fs::write(home.join("aws-config"), format!("[default]\ncredential_process = {}\n", bin.join("give-keys").display())).unwrap();
    fs::write(home.join("secret"), "canary-file").unwrap();
    world.machine.unset("AWS_ACCESS_KEY_ID");
    world.machine.unset("AWS_SECRET_ACCESS_KEY");
    world.machine.put("AWS_CONFIG_FILE", home.join("aws-config").to_str().unwrap());
    // The programs inherit these two, as they would from any shell.
    let given = [("SECRET_VARIABLE", "canary-variable"), ("API_TOKEN", "canary-argument")];
    for (name, value) in given {
        world.machine.put(name, value);
    }
    let secrets = ["--secret", "id=a,src=../secret", "--secret", "id=b,env=SECRET_VARIABLE", "--build-arg", "API_TOKEN"];
    let mut command = world.command("build", &[&["--push", "--report", "../report.json"], &secrets[..]].concat());
    let mut shown = BTreeSet::new();
    let log = home.join("log");
    let file = fs::File::create(&log).unwrap();
    let code = watch(&mut command.stdout(Stdio::null()).stderr(file).spawn().unwrap(), &mut shown);
    assert_eq!(code, 0, "{}", fs::read_to_string(&log).unwrap());
    let noted = fs::read_to_string(&seen).unwrap();
    assert!(noted.lines().any(|line| line.ends_with("/give-keys")), "{noted}");
    shown.extend(noted.lines().map(str::to_owned));
    let inherited = given.map(|(name, value)| format!("{name}={value}"));
    let leaks: Vec<_> =
        shown.iter().filter(|text| !inherited.contains(text) && SECRETS.iter().any(|secret| text.contains(secret))).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}
