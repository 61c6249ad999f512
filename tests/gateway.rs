//! Tests a gateway client on every engine: it compiles a Dockerfile without running it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::HashMap;

use hakobi::engine::buildkit::{BuildKit, Session, SessionParts, SolveRequest, Solved};
use hakobi::engine::{Dialer, Docker};
use hakobi::event::{Event, Events};
use hakobi::graph::Graph;
use hakobi::settings::DaemonEndpoint;
use support::engine::{ENGINES, Engine};
use support::parts::part;

const DOCKERFILE: &str =
    "FROM BASE AS build\nRUN mkdir /made && echo text > /made/file\nFROM BASE\nCOPY --from=build /made /made\nCMD [\"true\"]\n";

async fn on(engine: &Engine) {
    let folder = tempfile::tempdir().unwrap();
    let base = format!("{}/base/busybox:latest", part("HAKOBI_TEST_REGISTRY_OPEN"));
    std::fs::write(folder.path().join("Dockerfile"), DOCKERFILE.replace("BASE", &base)).unwrap();
    let endpoint = DaemonEndpoint { url: engine.host(), tls: None, origin: "test".to_owned() };
    let docker = Docker::connect(Dialer::new(&endpoint).unwrap()).await.unwrap();
    let buildkit = BuildKit::connect(docker.dialer(), docker.info().await.unwrap().api).await.unwrap();
    let mut parts = SessionParts::default();
    parts.directories.add("context", folder.path());
    parts.directories.add("dockerfile", folder.path());
    let (events, mut receiver) = Events::channel();
    let session = Session::start(&buildkit, parts, &events).await.unwrap();
    let request = SolveRequest { entitlements: vec!["network.host".to_owned()], ..SolveRequest::default() };
    let work = buildkit.build(&session, request, &events, |mut gateway| async move {
        let options = HashMap::from([("force-network-mode".to_owned(), "host".to_owned())]);
        let solved = gateway.dockerfile(options).await?;
        let config: serde_json::Value = serde_json::from_slice(&solved.metadata["containerimage.config"]).unwrap();
        assert_eq!(config["config"]["Cmd"][0], "true");
        let graph = Graph::new(solved.definition().cloned().unwrap()).unwrap();
        let ran = std::iter::from_fn(|| receiver.try_recv().ok()).any(|event| match event {
            Event::Status(status) => status.vertexes.iter().any(|vertex| vertex.name.contains("RUN") && vertex.started.is_some()),
            _ => false,
        });
        assert!(!ran, "compiling runs nothing");
        let stages = graph.side_stages();
        assert_eq!(stages.iter().map(|stage| &*stage.name.0).collect::<Vec<_>>(), ["build"]);
        assert_eq!(graph.places()[&stages[0].steps[0].digest.to_string()].line, 2);
        Ok(Solved::default())
    });
    work.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_client_can_do_what_the_plan_needs() {
    for name in ENGINES {
        on(&Engine::lock(name)).await;
    }
}
