//! The package managers that a command may call, the files that they read, and their download directories.

use std::collections::BTreeMap;

/// A package manager.
#[derive(Debug, PartialEq)]
pub(super) struct Manager {
    programs: &'static [&'static str],
    /// First arguments that install a project's dependencies. An empty one stands for no argument.
    installs: &'static [&'static str],
    /// First arguments that download too, but need the sources.
    builds: &'static [&'static str],
    /// The project's files that it reads to install.
    pub(super) manifests: &'static [&'static str],
    /// Whether it installs without reading a file of the project.
    pub(super) of_system: bool,
    /// Options that disable its download cache.
    pub(super) keeps_none: &'static [&'static str],
    /// Variables that set its download directory, with the path below it.
    variables: &'static [(&'static str, &'static str)],
    /// Its default download directory for root.
    folder: &'static str,
    /// Further options that its cache mount needs.
    pub(super) mount_options: &'static str,
}

const PLAIN: Manager = Manager {
    programs: &[],
    installs: &["install"],
    builds: &[],
    manifests: &[],
    of_system: false,
    keeps_none: &[],
    variables: &[],
    folder: "",
    mount_options: "",
};

const MANAGERS: &[Manager] = &[
    Manager {
        programs: &["pip", "pip3"],
        manifests: &["requirements.txt", "constraints.txt"],
        keeps_none: &["--no-cache-dir"],
        variables: &[("PIP_CACHE_DIR", "")],
        folder: "/root/.cache/pip",
        ..PLAIN
    },
    Manager {
        programs: &["poetry"],
        manifests: &["pyproject.toml", "poetry.lock"],
        keeps_none: &["--no-cache"],
        variables: &[("POETRY_CACHE_DIR", "")],
        folder: "/root/.cache/pypoetry",
        ..PLAIN
    },
    Manager {
        programs: &["uv"],
        installs: &["sync"],
        manifests: &["pyproject.toml", "uv.lock"],
        keeps_none: &["--no-cache"],
        variables: &[("UV_CACHE_DIR", "")],
        folder: "/root/.cache/uv",
        ..PLAIN
    },
    Manager {
        programs: &["npm"],
        installs: &["ci", "install", "i"],
        manifests: &["package.json", "package-lock.json", "npm-shrinkwrap.json", ".npmrc"],
        variables: &[("NPM_CONFIG_CACHE", ""), ("npm_config_cache", "")],
        folder: "/root/.npm",
        ..PLAIN
    },
    Manager {
        programs: &["yarn"],
        installs: &["install", ""],
        manifests: &["package.json", "yarn.lock", ".yarnrc", ".yarnrc.yml"],
        variables: &[("YARN_CACHE_FOLDER", "")],
        folder: "/usr/local/share/.cache/yarn",
        ..PLAIN
    },
    Manager {
        programs: &["pnpm"],
        installs: &["install", "i", "fetch"],
        manifests: &["package.json", "pnpm-lock.yaml", "pnpm-workspace.yaml", ".npmrc"],
        variables: &[("PNPM_HOME", "/store")],
        folder: "/root/.local/share/pnpm/store",
        ..PLAIN
    },
    Manager {
        programs: &["bundle", "bundler"],
        installs: &["install", ""],
        manifests: &["Gemfile", "Gemfile.lock"],
        variables: &[("GEM_HOME", "/cache")],
        ..PLAIN
    },
    Manager {
        programs: &["composer"],
        manifests: &["composer.json", "composer.lock"],
        variables: &[("COMPOSER_CACHE_DIR", ""), ("COMPOSER_HOME", "/cache")],
        ..PLAIN
    },
    Manager {
        programs: &["go"],
        installs: &["mod download"],
        builds: &["build", "install", "get", "test"],
        manifests: &["go.mod", "go.sum"],
        variables: &[("GOMODCACHE", ""), ("GOPATH", "/pkg/mod")],
        folder: "/root/go/pkg/mod",
        ..PLAIN
    },
    Manager {
        programs: &["cargo"],
        installs: &["fetch"],
        builds: &["build", "install", "test"],
        manifests: &["Cargo.toml", "Cargo.lock"],
        variables: &[("CARGO_HOME", "/registry")],
        folder: "/root/.cargo/registry",
        ..PLAIN
    },
    Manager {
        programs: &["mvn", "mvnw"],
        installs: &["dependency:go-offline", "dependency:resolve"],
        builds: &["package", "install", "verify", "compile", "clean"],
        manifests: &["pom.xml"],
        folder: "/root/.m2",
        ..PLAIN
    },
    Manager {
        programs: &["gradle", "gradlew"],
        installs: &["dependencies"],
        builds: &["build", "assemble", "bootJar", "clean"],
        manifests: &["build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts", "gradle.properties"],
        variables: &[("GRADLE_USER_HOME", "")],
        folder: "/root/.gradle",
        ..PLAIN
    },
    Manager {
        programs: &["apt-get", "apt"],
        of_system: true,
        folder: "/var/cache/apt",
        mount_options: ",sharing=locked",
        ..PLAIN
    },
    Manager {
        programs: &["apk"],
        installs: &["add"],
        of_system: true,
        keeps_none: &["--no-cache"],
        folder: "/var/cache/apk",
        mount_options: ",sharing=locked",
        ..PLAIN
    },
    Manager {
        programs: &["dnf", "microdnf"],
        of_system: true,
        folder: "/var/cache/dnf",
        mount_options: ",sharing=locked",
        ..PLAIN
    },
    Manager { programs: &["yum"], of_system: true, folder: "/var/cache/yum", mount_options: ",sharing=locked", ..PLAIN },
];

/// A call of a package manager.
pub(super) struct Call<'a> {
    pub(super) manager: &'static Manager,
    /// Whether the call needs only the manifests.
    pub(super) installs: bool,
    pub(super) words: Vec<&'a str>,
}

impl Call<'_> {
    /// Returns the download directory, from the step's variables and its user. Returns `None` if it is not known.
    pub(super) fn folder(&self, env: &BTreeMap<String, String>, user: &str) -> Option<String> {
        let set = |(name, below): &(&str, &str)| Some(format!("{}{below}", env.get(*name)?.trim_end_matches('/')));
        let folder = self.manager.variables.iter().find_map(set);
        let of_root = matches!(user, "" | "0" | "root" | "0:0" | "root:root") && !self.manager.folder.is_empty();
        folder.filter(|folder| folder.starts_with('/')).or_else(|| of_root.then(|| self.manager.folder.to_owned()))
    }

    /// Returns the option of the call that disables the download cache, or `None`.
    pub(super) fn keeps_none(&self) -> Option<&'static str> {
        self.manager.keeps_none.iter().copied().find(|option| self.words.contains(option))
    }
}

/// Returns the first call of a package manager in a command, or `None` if there is none.
pub(super) fn call(command: &str) -> Option<Call<'_>> {
    let mut parts = command.split(['\n', ';', '&', '|', '(', ')']);
    parts.find_map(|part| {
        let words: Vec<&str> = part.split_whitespace().collect();
        let name = |word: &str| word.rsplit('/').next().map(|name| name.trim_start_matches(['"', '\'']).to_owned());
        let (manager, at) = words.iter().enumerate().find_map(|(at, word)| {
            let name = name(word)?;
            Some((MANAGERS.iter().find(|manager| manager.programs.contains(&&*name))?, at))
        })?;
        // `RUN apt-get install pip` calls a package manager, `which pip` calls none.
        if words[..at].iter().any(|word| matches!(*word, "which" | "echo" | "rm" | "command" | "ls" | "cd" | "test")) {
            return None;
        }
        let plain = words[at + 1..].iter().filter(|word| !word.starts_with('-') && !word.contains('='));
        let plain: Vec<&str> = plain.map(|word| word.trim_matches(['"', '\''])).collect();
        let says = |phrase: &&str| match phrase.split_once(' ') {
            Some((first, second)) => plain.first() == Some(&first) && plain.get(1) == Some(&second),
            None => plain.first().copied().unwrap_or("") == *phrase,
        };
        let installs = manager.installs.iter().any(&says);
        (installs || manager.builds.iter().any(says)).then_some(Call { manager, installs, words })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_in_commands() {
        let of = |command: &str| call(command).map(|call| (call.manager.programs[0], call.installs));
        for (command, expected) in [
            ("/bin/sh -c npm ci", Some(("npm", true))),
            ("/bin/sh -c npm run ci", None),
            ("/bin/sh -c apt-get update && apt-get -y install pip", Some(("apt-get", true))),
            ("/bin/sh -c apt-get update", None),
            ("/bin/sh -c python3 -m pip install --no-cache-dir -r requirements.txt", Some(("pip", true))),
            ("/bin/sh -c /opt/bin/pip3 install x", Some(("pip", true))),
            ("/bin/sh -c which npm install", None),
            ("/bin/sh -c cd /app;yarn --frozen-lockfile", Some(("yarn", true))),
            ("/bin/sh -c yarn build", None),
            ("/bin/sh -c CGO_ENABLED=0 go build ./...", Some(("go", false))),
            ("/bin/sh -c go mod download", Some(("go", true))),
            ("/bin/sh -c go mod tidy", None),
            ("/bin/sh -c ./mvnw -B package", Some(("mvn", false))),
            ("/bin/sh -c make", None),
        ] {
            assert_eq!(of(command), expected, "{command}");
        }
    }

    #[test]
    fn downloads_are_where_variables_say_or_root_has_them() {
        let env = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let go = call("go mod download").unwrap();
        assert_eq!(go.folder(&env(&[("GOPATH", "/go/")]), ""), Some("/go/pkg/mod".to_owned()));
        assert_eq!(go.folder(&env(&[]), "root"), Some("/root/go/pkg/mod".to_owned()));
        assert_eq!(go.folder(&env(&[]), "app"), None, "whose home is not known");
        let pip = call("pip install --no-cache-dir x").unwrap();
        assert_eq!(pip.keeps_none(), Some("--no-cache-dir"));
    }
}
