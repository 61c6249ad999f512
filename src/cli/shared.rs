//! Flags that several commands have.

use clap::Arg;

use super::given::{choice, list, switch, text};

/// How a run is shown.
pub fn progress() -> Vec<Arg> {
    vec![
        choice("progress", "MODE", PROGRESS, "How the run is shown [default: auto]").help_heading("Display"),
        switch("quiet", "Print nothing but the result").short('q').help_heading("Display"),
    ]
}

/// What a push does besides pushing.
pub fn pushes() -> Vec<Arg> {
    vec![
        choice(
            "if-tag-exists",
            "WHAT",
            &["fail", "skip", "overwrite"],
            "What is done about a tag that is in the registry already; asked before anything is built [default: overwrite]",
        )
        .help_heading(REGISTRIES),
        text(
            "create-repository",
            "OPTIONS",
            "Make a missing ECR repository; options: scan,immutable,kms=KEY,tag=K=V,lifecycle=FILE",
        )
        .allow_hyphen_values(false)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .help_heading(REGISTRIES),
        text("compression", "KIND[:LEVEL]", "Of layers that hakobi compresses: gzip[:1-9] or zstd[:1-22] [default: gzip:6]")
            .help_heading(REGISTRIES),
    ]
}

/// How layers go to the daemon and come from it.
pub fn transport() -> Arg {
    choice(
        "transport",
        "WAY",
        &["auto", "registry", "archive"],
        "Of layers to and from the daemon: through a registry on 127.0.0.1, or as archives where it cannot reach this host \
         [default: auto, which tries]",
    )
}

/// How registries are reached.
pub fn registries() -> Vec<Arg> {
    vec![
        list(
            "insecure-registry",
            "HOST",
            "A registry that may speak plain HTTP or show a certificate that does not check (several)",
        )
        .help_heading(REGISTRIES),
        list("registry-role", "HOST=ARN", "A role to take on for an ECR registry (several)").help_heading(REGISTRIES),
        list("registry-mirror", "HOST=URL", "A pull-through cache in front of a registry (several)").help_heading(REGISTRIES),
    ]
}

/// Values of `--progress`.
pub const PROGRESS: &[&str] = &["auto", "plain", "tty", "quiet", "rawjson"];

pub(super) const REGISTRIES: &str = "Registries";
