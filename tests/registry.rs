//! Tests the registry client and the push, against a real registry, a scripted one, and an ECR in this process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "stores/conformance.rs"]
mod conformance;
mod support;

#[path = "registry/ecr.rs"]
mod ecr;
#[path = "registry/faults.rs"]
mod faults;
#[path = "registry/fixtures.rs"]
mod fixtures;
#[path = "registry/helpers.rs"]
mod helpers;
#[path = "registry/reads.rs"]
mod reads;
#[path = "registry/real.rs"]
mod real;
#[path = "registry/redirects.rs"]
mod redirects;
#[path = "registry/silence.rs"]
mod silence;
#[path = "registry/store.rs"]
mod store;
#[path = "registry/tls.rs"]
mod tls;
#[path = "registry/tokens.rs"]
mod tokens;
