//! Tests on handmade graphs which commands get mounts.

use super::*;
use crate::graph::testing::Made;

const GOLANG: &str = "docker-image://docker.io/library/golang:1@sha256:0";

/// A build stage, and an image that copies from it.
struct Script {
    made: Made,
    last: Input,
    env: Vec<String>,
    user: &'static str,
    network: pb::NetMode,
    cwd: &'static str,
}

impl Script {
    fn new() -> Self {
        Self::on(GOLANG)
    }

    fn on(base: &str) -> Self {
        let mut made = Made::default();
        let last = made.source(base);
        Self { made, last, env: Vec::new(), user: "", network: pb::NetMode::Unset, cwd: "/src" }
    }

    fn env(&mut self, variable: &str) -> &mut Self {
        self.env.push(variable.to_owned());
        self
    }

    fn run(&mut self, command: &str) -> &mut Self {
        self.run_with(command, Vec::new())
    }

    fn run_with(&mut self, command: &str, mounts: Vec<pb::Mount>) -> &mut Self {
        let args = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
        let meta =
            pb::Meta { args, env: self.env.clone(), cwd: self.cwd.to_owned(), user: self.user.to_owned(), ..Default::default() };
        let root = pb::Mount { dest: "/".to_owned(), ..pb::Mount::default() };
        let mounts = [vec![root], mounts].concat();
        let exec = pb::ExecOp { meta: Some(meta), mounts, network: self.network.into(), ..pb::ExecOp::default() };
        self.last = self.made.on(&[&self.last.clone()], pb::op::Op::Exec(exec));
        self
    }

    /// Copies files of the context to a directory.
    fn copy_to(&mut self, dest: &str) -> &mut Self {
        let context = self.made.source("local://context");
        let copy = pb::FileActionCopy { src: "/".to_owned(), dest: dest.to_owned(), ..Default::default() };
        let action = Some(pb::file_action::Action::Copy(copy));
        let action = pb::FileAction { input: 0, secondary_input: 1, output: 0, action };
        let files = pb::op::Op::File(pb::FileOp { actions: vec![action] });
        self.last = self.made.on(&[&self.last.clone(), &context], files);
        self
    }

    /// Returns the places that the commands get, with the numbers of the commands, if the image copies a path of the stage.
    fn mounts(&mut self, copied: &str) -> Vec<String> {
        let mut made = std::mem::take(&mut self.made);
        let scratch = made.source("docker-image://docker.io/library/alpine:3@sha256:1");
        let result = made.copy(&scratch, &self.last, copied);
        told(&made.graph(&result))
    }
}

fn told(graph: &Graph) -> Vec<String> {
    let commands: Vec<&Op> = graph.below(graph.result()).into_iter().filter(|op| op.is_command()).collect();
    let number = |step: &Digest| commands.iter().position(|op| op.digest == *step).unwrap() + 1;
    let all = possible_mounts(graph, "");
    let mut told: Vec<String> = all.iter().map(|one| format!("{} {}", number(&one.step), one.mount.target)).collect();
    told.sort();
    told
}

const NONE: [&str; 0] = [];
const NPM: [&str; 1] = ["1 /root/.npm/_cacache"];

#[test]
fn tools_of_a_build_stage_get_their_caches() {
    let mut go = Script::new();
    go.env("GOPATH=/go").run("go mod download").copy_to("/src").run("CGO_ENABLED=0 go build -o /app ./cmd/app");
    assert_eq!(go.mounts("/app"), ["2 /root/.cache/go-build"]);
    let mut go = Script::new();
    go.env("GOPATH=/go")
        .env("CGO_ENABLED=0")
        .copy_to("/src")
        .run("apt-get update && apt-get install -y git && rm -rf /var/lib/apt");
    assert_eq!(go.run("go build -o /app .").mounts("/app"), ["1 /var/cache/apt", "2 /go/pkg/mod", "2 /root/.cache/go-build"]);
    let mut node = Script::on("docker-image://docker.io/library/node:22@sha256:0");
    node.run("npm ci").copy_to("/src").run("npm run build");
    assert_eq!(node.mounts("/src/dist"), ["1 /root/.npm/_cacache"]);
    let mut rust = Script::new();
    rust.env("CARGO_HOME=/usr/local/cargo").copy_to("/src").run("cargo build --release && cp target/release/app /usr/bin/app");
    assert_eq!(rust.mounts("/usr/bin/app"), ["1 /usr/local/cargo/git/db", "1 /usr/local/cargo/registry"]);
    let mut apt = Script::on("docker-image://docker.io/library/debian:13@sha256:0");
    apt.run("apt-get update && apt-get install -y gcc").run("ccache gcc -c a.c").env("CC=ccache gcc").run("make");
    assert_eq!(apt.mounts("/src/a"), ["1 /var/cache/apt", "2 /root/.cache/ccache", "3 /root/.cache/ccache"]);
    let mut pip = Script::new();
    assert_eq!(pip.run("pip install -r all.txt").mounts("/venv"), ["1 /root/.cache/pip/http", "1 /root/.cache/pip/http-v2"]);
}

/// What the caches of these tools have may depend on more than the tools check.
#[test]
fn results_that_depend_on_more_are_not_kept() {
    for command in
        ["uv sync", "pnpm install", "mvn package", "gradle build", "sccache gcc -c a.c", "go build ./...", "go vet ./..."]
    {
        let mounts = Script::new().run(command).mounts("/src");
        assert!(mounts.iter().all(|mount| mount.ends_with("/go/pkg/mod")), "{command}: {mounts:?}");
    }
    let go = |command: &str| Script::new().env("CGO_ENABLED=0").run("true").run(command).mounts("/src");
    assert_eq!(go("go build ./..."), ["2 /root/.cache/go-build", "2 /root/go/pkg/mod"]);
    for command in ["go test ./...", "CGO_ENABLED=1 go build ./...", "unset CGO_ENABLED; go build ./..."] {
        assert_eq!(go(command), ["2 /root/go/pkg/mod"], "{command}");
    }
    assert_eq!(go("go build ./... && ./more.sh"), NONE);
}

#[test]
fn a_mount_has_its_own_id_and_needs_a_place_without_files() {
    let mut script = Script::on("docker-image://docker.io/library/debian:13@sha256:0");
    let base = script.last.step.clone();
    script.run("apt-get install -y gcc");
    let scratch = script.made.source("docker-image://docker.io/library/alpine:3@sha256:1");
    let result = script.made.copy(&scratch, &script.last, "/usr/bin/gcc");
    let graph = std::mem::take(&mut script.made).graph(&result);
    let all = possible_mounts(&graph, "");
    let mount = AddedMount {
        id: format!("auto:{}:/var/cache/apt", &base.hex()[..12]),
        target: "/var/cache/apt".to_owned(),
        sharing: pb::CacheSharingOpt::Locked.into(),
    };
    let without = ["/etc/apt/apt.conf.d/docker-clean", "/var/cache/apt"].map(str::to_owned).to_vec();
    assert_eq!(all, [AutoMount { step: script.last.step, mount, base, without }]);
    assert!(is_automatic(&all[0].mount.id) && !is_automatic("/auto:x"));
    let other = possible_mounts(&graph, "team");
    assert_ne!(other[0].mount.id, all[0].mount.id, "another namespace");
}

#[test]
fn nothing_of_the_image_is_hidden() {
    // The stage is the image.
    let mut script = Script::new();
    script.run("npm ci");
    let last = script.last.clone();
    assert_eq!(told(&std::mem::take(&mut script.made).graph(&last)), NONE);
    // The cache is copied, by itself or with what is around it.
    for path in ["/root/.npm/_cacache", "/root/.npm", "/root", "/", "/root/.npm/_cacache/x", "/root/.n*", "/ro*/x"] {
        assert_eq!(Script::new().run("npm ci").mounts(path), NONE, "{path}");
    }
    assert_eq!(Script::new().run("npm ci").mounts("/root/.npm/_logs"), NPM);
    // Another stage builds on this one, and is the image.
    let mut script = Script::new();
    script.run("npm ci").copy_to("/src");
    let last = script.last.clone();
    assert_eq!(told(&std::mem::take(&mut script.made).graph(&last)), NONE);
    // Another command sees the whole stage as a mount.
    let mut script = Script::new();
    script.run("npm ci");
    let stage = script.last.clone();
    let base = script.made.source(GOLANG);
    let root = pb::Mount { dest: "/".to_owned(), ..pb::Mount::default() };
    let bind = |selector: &str| pb::Mount { dest: "/from".to_owned(), input: 1, selector: selector.to_owned(), ..root.clone() };
    for (selector, expected) in [("", vec![]), ("/root", vec![]), ("/src", NPM.to_vec())] {
        let mut made = Made(script.made.0.clone());
        let meta = pb::Meta { args: vec!["true".to_owned()], ..pb::Meta::default() };
        let exec = pb::ExecOp { meta: Some(meta), mounts: vec![root.clone(), bind(selector)], ..pb::ExecOp::default() };
        let result = made.on(&[&base, &stage], pb::op::Op::Exec(exec));
        assert_eq!(told(&made.graph(&result)), expected, "{selector}");
    }
}

#[test]
fn nothing_below_is_hidden() {
    assert_eq!(Script::new().copy_to("/root/.npm/").run("npm ci").mounts("/src"), NONE);
    assert_eq!(Script::new().copy_to("/").run("npm ci").mounts("/src"), NONE);
    assert_eq!(Script::new().copy_to("/src").run("npm ci").mounts("/src"), NPM);
    // A command below fills it, without the mount.
    let cut = |script: &mut Script| script.network = pb::NetMode::None;
    let mut script = Script::new();
    cut(&mut script);
    script.run("npm ci");
    script.network = pb::NetMode::Unset;
    assert_eq!(script.run("npm ci").mounts("/src"), NONE);
    // The base image has no digest: nobody knows what it will be.
    assert_eq!(Script::on("docker-image://docker.io/library/node:22").run("npm ci").mounts("/src"), NONE);
    assert_eq!(Script::on("local://context").run("npm ci").mounts("/src"), NONE);
}

#[test]
fn what_other_commands_need_stays_in_the_layers() {
    let nuget = ["2 /root/.nuget/packages"];
    for other in
        ["cp app /app && chmod +x /app", "apt-get update && apt-get install -y git", "dotnet --version", "mkdir x && cd x"]
    {
        let mounts = Script::new().run(other).run("dotnet publish -o /out").mounts("/out");
        assert!(mounts.ends_with(&nuget.map(str::to_owned)), "{other}: {mounts:?}");
    }
    for other in
        ["dotnet restore", "./build.sh", "make", "npm run build", "$TOOL x", "sh -c 'dotnet build'", "./x -v", "find . -exec x"]
    {
        let before = Script::new().run(other).run("dotnet publish -o /out").mounts("/out");
        let after = Script::new().run("dotnet publish -o /out").run(other).mounts("/out");
        assert_eq!((before, after), (vec![], vec![]), "{other}");
    }
    assert_eq!(Script::new().run("dotnet publish -o /out && ./more.sh").mounts("/out"), NONE);
    for other in [
        "npm ci --offline",
        "npm_config_OFFLINE=1 npm ci",
        "cp -r /root/.npm /x",
        "cp -r ~/.npm /x",
        "tar c $HOME > /x",
        "tar -C ${HOME} -c .npm",
        "npm cache clean --force",
        "npm cache verify; npm ci",
        "npm ci --cache=/x",
        "npm \\\n cache clean",
        "npm ci $FLAGS",
        "echo $NPM_CONFIG_CACHE",
        "HOME=/x npm ci",
        "ls /root/*",
        "tar -C / -cf /x root",
        "cp -a / /x",
        "cd && tar cf /x .",
        "cd .. && cp -r root /x",
    ] {
        assert_eq!(Script::new().run("npm ci").run(other).mounts("/src"), NONE, "{other}");
    }
    for other in ["cp app /", "make install", "./script.sh", "rm -rf /var/lib/apt/lists/*", "cd /src && cp -r a b"] {
        assert_eq!(Script::new().run("npm ci").run(other).mounts("/src"), NPM, "{other}");
    }
    for variable in ["npm_config_offline=true", "NPM_CONFIG_OFFLINE=1"] {
        assert_eq!(Script::new().env(variable).run("npm ci").mounts("/src"), NONE, "{variable}");
    }
    assert_eq!(Script::new().env("npm_config_offline=false").run("npm ci").mounts("/src"), NPM);
    // The command is in a directory above.
    for (cwd, command, expected) in
        [("/", "cp -r root /x", vec![]), ("/", "chmod +x /bin/x", NPM.to_vec()), ("/root", "tar cf /x .", vec![])]
    {
        let mut script = Script::new();
        script.run("npm ci").cwd = cwd;
        assert_eq!(script.run(command).mounts("/src"), expected, "{cwd}: {command}");
    }
}

#[test]
fn a_command_says_that_it_wants_none() {
    for command in ["npm ci --cache /x", "npm ci --offline", "npm run ci", "echo npm ci", "which npm"] {
        assert_eq!(Script::new().run(command).mounts("/src"), NONE, "{command}");
    }
    assert_eq!(Script::new().run("pip install --no-cache-dir x").mounts("/src"), NONE);
    assert_eq!(Script::new().env("PIP_NO_CACHE_DIR=1").run("pip install x").mounts("/src"), NONE);
    let mut script = Script::new();
    script.user = "app";
    assert_eq!(script.run("npm ci").mounts("/src"), NONE);
    let own = |dest: &str| pb::Mount {
        dest: dest.to_owned(),
        input: -1,
        mount_type: pb::MountType::Cache.into(),
        ..Default::default()
    };
    assert_eq!(Script::new().run_with("npm ci", vec![own("/root/.npm/_cacache")]).mounts("/src"), NONE);
    assert_eq!(Script::new().run_with("npm ci", vec![own("/root")]).mounts("/src"), NONE);
    assert_eq!(Script::new().run_with("npm ci", vec![own("/src/.cache")]).mounts("/src"), NPM);
    assert_eq!(Script::new().env("HOME=../x").run("npm ci").mounts("/src"), NONE);
}

#[test]
fn a_graph_with_mounts_is_that_of_a_dockerfile_with_them() {
    let build = |mounts: Vec<pb::Mount>| {
        let mut script = Script::new();
        script.network = pb::NetMode::Host;
        script.run_with("npm ci", mounts).copy_to("/src");
        let last = script.last.clone();
        script.made.graph(&last)
    };
    let plain = build(Vec::new());
    let command = plain.below(plain.result()).into_iter().find(|op| op.is_command()).unwrap().digest.clone();
    let sharing = pb::CacheSharingOpt::Locked.into();
    let declared = pb::Mount {
        dest: "/root/.npm".to_owned(),
        input: -1,
        output: -1,
        mount_type: pb::MountType::Cache.into(),
        cache_opt: Some(pb::CacheOpt { id: "x".to_owned(), sharing }),
        ..pb::Mount::default()
    };
    let added = AddedMount { id: "x".to_owned(), target: "/root/.npm".to_owned(), sharing };
    let mounted = plain.with_mounts([(command, vec![added])].into()).unwrap();
    assert_eq!(mounted.result(), build(vec![declared]).result());
}
