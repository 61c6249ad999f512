//! Scratch.
use hakobi::build::*;
use hakobi::engine::buildkit::*;
use hakobi::engine::*;
use hakobi::event::*;
use std::collections::BTreeMap;
use std::sync::Arc;
#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let ep = hakobi::settings::DaemonEndpoint { url: args[1].clone(), tls: None, origin: "x".into() };
    let docker = Docker::connect(Dialer::new(&ep).unwrap()).await.unwrap();
    let info = docker.info().await.unwrap();
    println!("{info:?}");
    let bk = BuildKit::connect(docker.dialer(), info.api).await.unwrap();
    let (events, mut rx) = Events::channel();
    let mut parts = SessionParts { credentials: Some(Arc::new(SessionCredentials)), ..Default::default() };
    parts.directories.add("context", &args[2]);
    parts.directories.add("dockerfile", &args[2]);
    let session = Session::start(&bk, parts, &events).await.unwrap();
    let name = args[3].clone();
    let mut imports = vec![];
    for r in &args[4..] {
        imports.push(CacheOption { kind: "registry".into(), attributes: BTreeMap::from([("ref".to_string(), r.clone())]) });
    }
    let req = SolveRequest {
        exports: vec![Export { kind: "moby".into(), attributes: BTreeMap::from([("name".into(), name)]) }],
        cache_exports: vec![CacheOption { kind: "inline".into(), attributes: BTreeMap::new() }],
        entitlements: vec!["network.host".into()],
    };
    let t = tokio::spawn(async move {
        while let Some(e) = rx.recv().await {
            if let Event::Status(s) = e {
                for v in s.vertexes {
                    if v.completed.is_some() {
                        println!("{} cached={} {}", v.name, v.cached, v.error)
                    }
                }
            }
        }
    });
    let r = bk
        .build(&session, req, &events, |mut gw| async move {
            let mut o = std::collections::HashMap::from([("force-network-mode".to_string(), "host".to_string())]);
            if !imports.is_empty() {
                o.insert("cache-imports".into(), serde_json::to_string(&imports).unwrap());
            }
            let s = gw.frontend("dockerfile.v0", o, false).await?;
            println!("ops: {}", s.definition().unwrap().def.len());
            Ok(s)
        })
        .await;
    println!("{r:?} sent={}", session.bytes_sent());
    drop(session);
    drop(events);
    let _ = t.await;
}
