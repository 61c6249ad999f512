//! Plans of recorded builds, and how each reason to plan again changes them. No daemon, no registry, no files.

use super::*;
use crate::build::Compiled;
use crate::cache::testing::MemoryCache;
use crate::domain::{Descriptor, DiffId, StepKey, media_type};
use crate::graph::testing::Made;
use crate::graph::{Key, ResolvedSource};
use crate::plan::{CopiedContentRecord, KnownFacts, Layer, LayerRecord, StepRecord, copied_content_key, layer_key, step_key};

/// `FROM base`, `RUN compile`, `FROM base`, `ADD https://…`, `COPY --from=0`, `RUN install`, and the states of the last four.
struct Project {
    plan: BuildPlan,
    compile: Input,
    download: Input,
    copy: Input,
    install: Input,
}

fn project() -> Project {
    let mut made = Made::default();
    let base = made.source("docker-image://base");
    let remote = made.source("https://host/file");
    let compile = made.command(&base, "compile");
    let download = made.copy(&base, &remote, "/file");
    let copy = made.copy(&download, &compile, "/out");
    let install = made.command(&copy, "install");
    let graph = made.graph(&install);
    let mut facts = KnownFacts::default();
    facts.images.insert(base.step, Ok(vec![layer("base").diff_id]));
    let held = ResolvedSource::File { content: Digest::hash(b"file"), modified: String::new() };
    facts.remotes.insert(remote.step, Ok(held));
    let compiled = Compiled { definition: Default::default(), config: Vec::new(), platforms: None, engine: "28.5".to_owned() };
    Project { plan: BuildPlan::new(compiled, graph, facts), compile, download, copy, install }
}

fn layer(text: &str) -> Layer {
    let blob = Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::hash(text.as_bytes()), 100);
    Layer { blob, diff_id: DiffId::hash(format!("{text}, unpacked").as_bytes()), created: None }
}

/// The content of the first stage's output, and of the download, when the project was recorded.
fn output() -> Digest {
    Digest::hash(b"output")
}

/// A cache with a recorded build of the project, and with the content of its first stage.
async fn recorded() -> MemoryCache {
    let cache = MemoryCache::default();
    let records = cache.records();
    let Project { mut plan, compile, download, copy, install } = project();
    plan.keys = crate::graph::Keys::new(&plan.graph, &plan.facts);
    for source in plan.keys.copy_sources() {
        let content = CopiedContentRecord { content: output(), chain: None };
        records.write([(copied_content_key(source.key.as_ref().expect("a key")), content)]).await.expect("written");
        plan.facts.seen.insert(source.place(), output());
    }
    let keys = crate::graph::Keys::new(&plan.graph, &plan.facts);
    let chains: [(&Input, &[&str]); 4] = [
        (&compile, &["base", "compile"]),
        (&download, &["base", "download"]),
        (&copy, &["base", "download", "copy"]),
        (&install, &["base", "download", "copy", "install"]),
    ];
    for (state, layers) in chains {
        let Key::Known(key) = keys.state(state) else { panic!("no key: {state:?}") };
        let layers: Vec<Layer> = layers.iter().copied().map(layer).collect();
        records.write(layers.iter().map(|layer| (layer_key(layer), LayerRecord {}))).await.expect("written");
        records.write([(step_key(&key), StepRecord { layers, ran: Some(1) })]).await.expect("written");
    }
    cache
}

/// Plans the project with a cache, and then again for this reason.
async fn replanned(cache: &MemoryCache, why: impl FnOnce(&Project) -> Option<Replan>) -> Project {
    let faults = cache.faults();
    let reader = cache.reader(&faults);
    let mut project = project();
    lookup::decide(&mut project.plan, &reader).await.expect("planned");
    if let Some(why) = why(&project) {
        replan(&mut project.plan, why, &reader).await.expect("planned again");
    }
    project
}

/// Which of the project's steps run: compile, download, copy, install.
fn runs(project: &Project) -> [bool; 4] {
    [&project.compile, &project.download, &project.copy, &project.install].map(|state| project.plan.decision.runs(&state.step))
}

fn key(project: &Project, state: &Input) -> StepKey {
    match project.plan.keys.state(state) {
        Key::Known(key) => key,
        other => panic!("no key: {other:?}"),
    }
}

#[tokio::test]
async fn a_recorded_build_is_unchanged() {
    let project = replanned(&recorded().await, |_| None).await;
    assert!(project.plan.decision.unchanged);
    assert_eq!(runs(&project), [false; 4]);
    let cold = replanned(&MemoryCache::default(), |_| None).await;
    assert_eq!(runs(&cold), [true; 4]);
}

#[tokio::test]
async fn nothing_is_reused_of_a_cache_that_cannot_be_used() {
    let project = replanned(&recorded().await, |_| Some(Replan::CacheUnusable)).await;
    assert_eq!(runs(&project), [true; 4]);
    assert!(project.plan.decision.cached.is_empty());
}

#[tokio::test]
async fn the_steps_whose_layers_are_lost_run_on_those_that_are_there() {
    let lost = |states: Vec<StepKey>| Some(Replan::LayersLost(LostLayers { states, bases: Vec::new() }));
    let cache = recorded().await;
    let project = replanned(&cache, |project| lost(vec![key(project, &project.install)])).await;
    assert_eq!(runs(&project), [false, false, false, true]);
    assert!(project.plan.decision.cached.contains_key(&project.copy));
    let all = [|p: &Project| key(p, &p.download), |p: &Project| key(p, &p.copy), |p: &Project| key(p, &p.install)];
    let project = replanned(&cache, |project| lost(all.map(|of| of(project)).to_vec())).await;
    // The files come from a state that the cache has.
    assert_eq!(runs(&project), [false, true, true, true]);
    assert!(project.plan.decision.cached.contains_key(&project.compile));
}

#[tokio::test]
async fn a_download_that_became_another_runs_and_what_is_on_it() {
    let project = replanned(&recorded().await, |_| Some(Replan::RemotesMoved)).await;
    assert_eq!(runs(&project), [false, true, true, true]);
    let key = project.plan.keys.state(&project.install);
    assert!(!matches!(key, Key::Known(_)), "what nobody knows is not recorded: {key:?}");
}

#[tokio::test]
async fn the_same_plan_holds_for_a_daemon_that_pulls_by_itself() {
    let project = replanned(&recorded().await, |_| Some(Replan::BypassBaseProxy("no answer".to_owned()))).await;
    assert_eq!(runs(&project), [false; 4]);
}

#[tokio::test]
async fn what_was_observed_decides() {
    let cache = recorded().await;
    let observed = |content: &'static [u8]| {
        move |project: &Project| {
            let source = project.plan.keys.copy_sources().iter().find(|source| source.state == project.compile).expect("copied");
            Some(Replan::Observed(vec![(source.place(), Digest::hash(content))]))
        }
    };
    assert_eq!(runs(&replanned(&cache, observed(b"output")).await), [false; 4]);
    // The cache has the step that made the files, so it need not run again.
    let other = replanned(&cache, observed(b"another output")).await;
    assert_eq!(runs(&other), [false, false, true, true]);
}
