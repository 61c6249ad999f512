//! Declares the flags that several commands share.

use clap::Arg;

use super::given::{choice, list, switch, text};

/// Returns the flags of the display.
pub fn progress() -> Vec<Arg> {
    vec![
        choice("progress", "MODE", PROGRESS, "How to show progress [default: auto]").help_heading("Display"),
        switch("quiet", "Print only the result").short('q').help_heading("Display"),
    ]
}

/// Returns the flags of a push.
pub fn pushes() -> Vec<Arg> {
    vec![
        choice(
            "if-tag-exists",
            "WHAT",
            &["fail", "skip", "overwrite"],
            "What to do if the tag already exists in the registry; checked before the build [default: overwrite]",
        )
        .help_heading(REGISTRIES),
        text(
            "create-repository",
            "OPTIONS",
            "Create missing ECR repositories; options: scan,immutable,kms=KEY,tag=K=V,lifecycle=FILE",
        )
        .allow_hyphen_values(false)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .help_heading(REGISTRIES),
        text("compression", "KIND[:LEVEL]", "Compression of new layers: gzip[:1-9] or zstd[:1-22] [default: gzip:6]")
            .help_heading(REGISTRIES),
    ]
}

/// Returns the flag of the transfer of layers to and from the daemon.
pub fn transport() -> Arg {
    choice(
        "transport",
        "WAY",
        &["auto", "registry", "archive"],
        "How to move layers to and from the daemon: through a registry on 127.0.0.1, or as archives if the daemon \
         cannot reach this host [default: auto, which tries the registry first]",
    )
}

/// Returns the flags of registries.
pub fn registries() -> Vec<Arg> {
    vec![
        list("insecure-registry", "HOST", "Allow plain HTTP and invalid certificates for this registry (repeatable)")
            .help_heading(REGISTRIES),
        list("registry-role", "HOST=ARN", "IAM role to assume for an ECR registry (repeatable)").help_heading(REGISTRIES),
        list("registry-mirror", "HOST=URL", "Pull-through cache of a registry (repeatable)").help_heading(REGISTRIES),
    ]
}

/// The values of `--progress`.
pub const PROGRESS: &[&str] = &["auto", "plain", "tty", "quiet", "rawjson"];

pub(super) const REGISTRIES: &str = "Registries";
