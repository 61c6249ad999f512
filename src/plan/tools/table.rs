//! The table of tools. Each line names the manual that says where the cache is. `--auto-mounts` takes only caches that the tool itself
//! checks: what is there is the same whatever else the command saw, or the tool compares all that it depends on.

use super::Automatic::{Always, If, Never};
use super::Used::{ByTool, InPlace};
use super::{Cache, Output, Tool};

const PLAIN: Tool = Tool {
    programs: &[],
    installs: &["install"],
    builds: &[],
    manifests: &[],
    of_system: false,
    keeps_none: &[],
    relies: &[],
    wrappers: &[],
    caches: &[],
    output: None,
};

/// A cache without rules of its own.
const CACHE: Cache = Cache {
    variables: &[],
    folder: "",
    used: ByTool,
    of_builds: false,
    locked: false,
    unless: None,
    automatic: Always,
    only_automatic: false,
};

/// A built wheel does not say which libraries and compiler flags it was built with.
const WHEELS: &str = "it has wheels that depend on the system's libraries";

/// A repository remembers that a version was missing, and for how long a snapshot is current.
const ANSWERS: &str = "it has answers of servers that have changed since";

/// The package manager keeps nothing there unless it is told to.
const UNUSED: &str = "it is empty unless the system is configured";

/// The variables in which other programs find the name of a compiler.
const COMPILERS: &[&str] = &["CC", "CXX", "CMAKE_C_COMPILER_LAUNCHER", "CMAKE_CXX_COMPILER_LAUNCHER"];

/// All tools.
pub(in crate::plan) const TOOLS: &[Tool] = &[
    // https://pip.pypa.io/en/stable/topics/caching/: downloads are in `http-v2`, in `http` before pip 23.3, and built wheels in `wheels`.
    Tool {
        programs: &["pip", "pip3"],
        manifests: &["requirements.txt", "constraints.txt"],
        keeps_none: &["--no-cache-dir", "PIP_NO_CACHE_DIR"],
        relies: &["cache", "--no-index", "--cache-dir"],
        caches: &[
            Cache {
                variables: &[("PIP_CACHE_DIR", ""), ("XDG_CACHE_HOME", "/pip")],
                folder: "~/.cache/pip",
                automatic: Never(WHEELS),
                ..CACHE
            },
            Cache {
                variables: &[("PIP_CACHE_DIR", "/http-v2"), ("XDG_CACHE_HOME", "/pip/http-v2")],
                folder: "~/.cache/pip/http-v2",
                only_automatic: true,
                ..CACHE
            },
            Cache {
                variables: &[("PIP_CACHE_DIR", "/http"), ("XDG_CACHE_HOME", "/pip/http")],
                folder: "~/.cache/pip/http",
                only_automatic: true,
                ..CACHE
            },
        ],
        ..PLAIN
    },
    // https://python-poetry.org/docs/configuration/#cache-dir: its environments are there too, and belong in the image.
    Tool {
        programs: &["poetry"],
        manifests: &["pyproject.toml", "poetry.lock"],
        keeps_none: &["--no-cache", "POETRY_NO_CACHE"],
        relies: &["cache"],
        caches: &[
            Cache {
                variables: &[("POETRY_CACHE_DIR", "/cache"), ("XDG_CACHE_HOME", "/pypoetry/cache")],
                folder: "~/.cache/pypoetry/cache",
                locked: true,
                ..CACHE
            },
            Cache {
                variables: &[("POETRY_CACHE_DIR", "/artifacts"), ("XDG_CACHE_HOME", "/pypoetry/artifacts")],
                folder: "~/.cache/pypoetry/artifacts",
                automatic: Never(WHEELS),
                ..CACHE
            },
        ],
        ..PLAIN
    },
    // https://docs.astral.sh/uv/concepts/cache/
    Tool {
        programs: &["uv"],
        installs: &["sync", "pip install", "pip sync"],
        manifests: &["pyproject.toml", "uv.lock"],
        keeps_none: &["--no-cache", "-n", "UV_NO_CACHE"],
        caches: &[Cache {
            variables: &[("UV_CACHE_DIR", ""), ("XDG_CACHE_HOME", "/uv")],
            folder: "~/.cache/uv",
            automatic: Never(WHEELS),
            ..CACHE
        }],
        ..PLAIN
    },
    // https://docs.npmjs.com/cli/commands/npm-cache: all data in `_cacache` is verified. What `npx` installed is beside that.
    Tool {
        programs: &["npm"],
        installs: &["ci", "install", "i"],
        manifests: &["package.json", "package-lock.json", "npm-shrinkwrap.json", ".npmrc"],
        relies: &["cache", "--cache"],
        caches: &[Cache {
            variables: &[("NPM_CONFIG_CACHE", "/_cacache"), ("npm_config_cache", "/_cacache")],
            folder: "~/.npm/_cacache",
            ..CACHE
        }],
        ..PLAIN
    },
    // https://classic.yarnpkg.com/en/docs/cli/cache: two of it must not use one directory at a time (`--mutex`). With the variable it may
    // be a later yarn, which runs programs from there.
    Tool {
        programs: &["yarn"],
        installs: &["install", ""],
        manifests: &["package.json", "yarn.lock", ".yarnrc", ".yarnrc.yml"],
        relies: &["cache", "--cache-folder", "YARN_CACHE_FOLDER"],
        caches: &[Cache {
            variables: &[("YARN_CACHE_FOLDER", "")],
            folder: "/usr/local/share/.cache/yarn",
            locked: true,
            ..CACHE
        }],
        ..PLAIN
    },
    // https://pnpm.io/settings#storedir, https://pnpm.io/settings#sideeffectscache
    Tool {
        programs: &["pnpm"],
        installs: &["install", "i", "fetch"],
        manifests: &["package.json", "pnpm-lock.yaml", "pnpm-workspace.yaml", ".npmrc"],
        caches: &[Cache {
            variables: &[("PNPM_HOME", "/store"), ("XDG_DATA_HOME", "/pnpm/store")],
            folder: "~/.local/share/pnpm/store",
            automatic: Never("it has what the packages' own scripts made"),
            ..CACHE
        }],
        ..PLAIN
    },
    // https://bundler.io/man/bundle-install.1.html: it looks for archives of gems in `cache` of the gems' directory.
    Tool {
        programs: &["bundle", "bundler"],
        installs: &["install", ""],
        manifests: &["Gemfile", "Gemfile.lock"],
        relies: &["cache", "package", "clean", "--local"],
        caches: &[Cache { variables: &[("GEM_HOME", "/cache")], ..CACHE }],
        ..PLAIN
    },
    // https://getcomposer.org/doc/06-config.md#cache-dir
    Tool {
        programs: &["composer"],
        manifests: &["composer.json", "composer.lock"],
        keeps_none: &["--no-cache"],
        relies: &["clear-cache", "clearcache", "COMPOSER_DISABLE_NETWORK"],
        caches: &[Cache { variables: &[("COMPOSER_CACHE_DIR", ""), ("COMPOSER_HOME", "/cache")], ..CACHE }],
        ..PLAIN
    },
    // https://go.dev/ref/mod#module-cache, https://pkg.go.dev/cmd/go#hdr-Build_and_test_caching: it "does not detect changes to C libraries
    // imported with cgo", and does not run a test again that it has seen.
    Tool {
        programs: &["go"],
        installs: &["mod download"],
        builds: &["build", "install", "get", "test", "vet", "list", "mod verify", "mod tidy", "mod vendor"],
        manifests: &["go.mod", "go.sum"],
        relies: &["clean"],
        caches: &[
            Cache { variables: &[("GOMODCACHE", ""), ("GOPATH", "/pkg/mod")], folder: "~/go/pkg/mod", used: InPlace, ..CACHE },
            Cache {
                variables: &[("GOCACHE", ""), ("XDG_CACHE_HOME", "/go-build")],
                folder: "~/.cache/go-build",
                of_builds: true,
                automatic: If { variable: ("CGO_ENABLED", "0"), not: "test" },
                ..CACHE
            },
        ],
        ..PLAIN
    },
    // https://doc.rust-lang.org/cargo/guide/cargo-home.html, https://doc.rust-lang.org/cargo/reference/build-cache.html. Its lock is in
    // its home, outside of these.
    Tool {
        programs: &["cargo"],
        installs: &["fetch"],
        builds: &["build", "install", "test", "check", "clippy", "doc", "chef prepare", "chef cook"],
        manifests: &["Cargo.toml", "Cargo.lock"],
        relies: &["clean", "vendor", "--frozen"],
        caches: &[
            Cache {
                variables: &[("CARGO_HOME", "/registry")],
                folder: "~/.cargo/registry",
                used: InPlace,
                locked: true,
                ..CACHE
            },
            Cache { variables: &[("CARGO_HOME", "/git/db")], folder: "~/.cargo/git/db", used: InPlace, locked: true, ..CACHE },
        ],
        output: Some(Output { variable: "CARGO_TARGET_DIR", folder: "target" }),
        ..PLAIN
    },
    // https://maven.apache.org/guides/introduction/introduction-to-repositories.html
    Tool {
        programs: &["mvn", "mvnw"],
        installs: &["dependency:go-offline", "dependency:resolve"],
        builds: &["package", "install", "verify", "compile", "clean", "test"],
        manifests: &["pom.xml"],
        caches: &[Cache { folder: "~/.m2/repository", used: InPlace, locked: true, automatic: Never(ANSWERS), ..CACHE }],
        ..PLAIN
    },
    // https://docs.gradle.org/current/userguide/directory_layout.html#dir:gradle_user_home
    Tool {
        programs: &["gradle", "gradlew"],
        installs: &["dependencies"],
        builds: &["build", "assemble", "bootJar", "clean", "test", "check", "jar"],
        manifests: &["build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts", "gradle.properties"],
        caches: &[Cache {
            variables: &[("GRADLE_USER_HOME", "")],
            folder: "~/.gradle",
            used: InPlace,
            locked: true,
            automatic: Never(ANSWERS),
            ..CACHE
        }],
        ..PLAIN
    },
    // https://learn.microsoft.com/en-us/nuget/consume-packages/managing-the-global-packages-and-cache-folders
    Tool {
        programs: &["dotnet"],
        installs: &["restore"],
        builds: &["build", "publish", "test", "pack"],
        manifests: &["packages.lock.json", "nuget.config", "NuGet.Config", "Directory.Packages.props", "Directory.Build.props"],
        relies: &["--no-restore", "--no-build", "--packages", "nuget"],
        caches: &[Cache {
            variables: &[("NUGET_PACKAGES", "")],
            folder: "~/.nuget/packages",
            used: InPlace,
            locked: true,
            ..CACHE
        }],
        ..PLAIN
    },
    // https://ccache.dev/manual/latest.html#_cache_location
    Tool {
        programs: &["ccache"],
        installs: &[],
        relies: &["-C", "--clear", "-d", "--directory"],
        wrappers: COMPILERS,
        caches: &[Cache { variables: &[("CCACHE_DIR", ""), ("XDG_CACHE_HOME", "/ccache")], folder: "~/.cache/ccache", ..CACHE }],
        ..PLAIN
    },
    // https://github.com/mozilla/sccache/blob/main/docs/Local.md, https://github.com/mozilla/sccache/blob/main/docs/Rust.md
    Tool {
        programs: &["sccache"],
        installs: &[],
        wrappers: COMPILERS,
        caches: &[Cache {
            variables: &[("SCCACHE_DIR", ""), ("XDG_CACHE_HOME", "/sccache")],
            folder: "~/.cache/sccache",
            automatic: Never("it does not see the files that Rust's procedural macros read"),
            ..CACHE
        }],
        ..PLAIN
    },
    // https://manpages.debian.org/apt.conf: Dir::Cache::Archives. Docker's images of Debian and Ubuntu empty it after each call.
    Tool {
        programs: &["apt-get", "apt"],
        of_system: true,
        relies: &["clean", "autoclean", "--no-download"],
        caches: &[Cache { folder: "/var/cache/apt", locked: true, unless: Some("/etc/apt/apt.conf.d/docker-clean"), ..CACHE }],
        ..PLAIN
    },
    Tool {
        programs: &["apk"],
        installs: &["add"],
        of_system: true,
        keeps_none: &["--no-cache"],
        caches: &[Cache { folder: "/var/cache/apk", locked: true, automatic: Never(UNUSED), ..CACHE }],
        ..PLAIN
    },
    Tool {
        programs: &["dnf", "microdnf"],
        of_system: true,
        caches: &[Cache { folder: "/var/cache/dnf", locked: true, automatic: Never(UNUSED), ..CACHE }],
        ..PLAIN
    },
    Tool {
        programs: &["yum"],
        of_system: true,
        caches: &[Cache { folder: "/var/cache/yum", locked: true, automatic: Never(UNUSED), ..CACHE }],
        ..PLAIN
    },
];
