//! Tests hakobi's builds from the command line to the image, without root and without a Docker engine. The daemon is a scripted model
//! ([`scripted`]), the registry is in memory, and the cache is a directory. The oracle is the model's own build without hakobi.

#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::expect_used)]

#[path = "support/background.rs"]
mod background;
#[path = "support/ecr_fake.rs"]
mod ecr_fake;
#[path = "support/fault_proxy.rs"]
mod fault_proxy;
#[path = "support/http_fake.rs"]
mod http_fake;
#[path = "support/machine.rs"]
mod machine;
#[path = "support/parts.rs"]
mod parts;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/scripted/mod.rs"]
mod scripted;

#[path = "hermetic/cache_faults.rs"]
mod cache_faults;
#[path = "hermetic/canaries.rs"]
mod canaries;
#[path = "stores/conformance.rs"]
mod conformance;
#[path = "hermetic/daemon_faults.rs"]
mod daemon_faults;
#[path = "hermetic/ecr_login.rs"]
mod ecr_login;
#[path = "hermetic/foreign_pushes.rs"]
mod foreign_pushes;
#[path = "hermetic/push_faults.rs"]
mod push_faults;
#[path = "hermetic/random.rs"]
mod random;
#[path = "hermetic/registry_cache.rs"]
mod registry_cache;
#[path = "hermetic/registry_faults.rs"]
mod registry_faults;
#[path = "hermetic/registry_store.rs"]
mod registry_store;
#[path = "hermetic/replans.rs"]
mod replans;
#[path = "hermetic/s3_access.rs"]
mod s3_access;
#[path = "hermetic/s3_cache.rs"]
mod s3_cache;
#[path = "hermetic/stages.rs"]
mod stages;
#[path = "hermetic/tiers.rs"]
mod tiers;
#[path = "hermetic/world.rs"]
mod world;
