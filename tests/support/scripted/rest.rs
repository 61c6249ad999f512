//! The parts of the scripted daemon's REST API that hakobi uses.

use std::sync::Arc;

use serde_json::{Value, json};

use super::daemon::{Daemon, StoreKind};
use super::layers::{Layer, Outgoing, Place};
use crate::http_fake::{Answer, answer};

fn as_json(value: &Value) -> Answer {
    answer(200, &[("content-type", "application/json")], value.to_string())
}

/// Answers a request. The path has no version.
pub async fn rest(daemon: &Daemon, method: &str, path: &str, query: &str) -> Answer {
    match (method, path) {
        (_, "/_ping") => return answer(200, &[("api-version", "1.51")], "OK"),
        (_, "/version") => {
            return as_json(&json!({
                "Version": "28.5.2", "ApiVersion": "1.51", "MinAPIVersion": "1.24", "Os": "linux", "Arch": super::architecture(),
            }));
        }
        (_, "/info") => {
            let driver = if daemon.store == StoreKind::Containerd { "io.containerd.snapshotter.v1" } else { "overlay2" };
            return as_json(&json!({ "ID": daemon.id(), "DriverStatus": [["driver-type", driver]] }));
        }
        _ => {}
    }
    if let Some(name) = path.strip_prefix("/distribution/") {
        if let Some(place) = Place::parse(&decoded(name.trim_end_matches("/json"))) {
            let _ = daemon.solver.client.get(place.url("manifests", &place.reference)).send().await;
        }
        return missing();
    }
    match path.strip_prefix("/images/") {
        Some(rest) => images(daemon, method, &decoded(rest), query).await,
        None => answer(501, &[], json!({ "message": format!("the model has no {method} {path}") }).to_string()),
    }
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn missing() -> Answer {
    answer(404, &[("content-type", "application/json")], r#"{"message":"No such image"}"#)
}

async fn images(daemon: &Daemon, method: &str, rest: &str, query: &str) -> Answer {
    let asked =
        |name: &str| decoded(query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default());
    let find = |name: &str| -> Option<Arc<Outgoing>> {
        let images = daemon.images.lock().unwrap();
        images.get(name).or_else(|| images.values().find(|image| daemon.id_of(image) == name)).cloned()
    };
    let (name, verb) = rest.rsplit_once('/').unwrap_or(("", rest));
    match (method, verb) {
        ("GET", "json") if name.is_empty() => {
            let images = daemon.images.lock().unwrap();
            let each = images.iter().map(|(name, image)| {
                json!({
                    "Id": daemon.id_of(image), "ParentId": "", "RepoTags": [name], "RepoDigests": [], "Created": 0, "Size": 0,
                    "SharedSize": 0, "Labels": {}, "Containers": 0,
                })
            });
            as_json(&each.collect())
        }
        ("GET", "json") => match find(name) {
            Some(image) => {
                let layers: Vec<&str> = image.layers.iter().map(Layer::diff_id).collect();
                as_json(&json!({ "Id": daemon.id_of(&image), "RootFS": { "Type": "layers", "Layers": layers } }))
            }
            None => missing(),
        },
        ("POST", "tag") => match find(name) {
            Some(image) => {
                daemon.images.lock().unwrap().insert(format!("{}:{}", asked("repo"), asked("tag")), image);
                answer(201, &[], "")
            }
            None => missing(),
        },
        ("POST", "push") => {
            let name = format!("{name}:{}", asked("tag"));
            let Some(image) = find(&name) else { return missing() };
            match image.push(&daemon.solver.client, &name).await {
                Ok(()) => as_json(&json!({ "status": "pushed" })),
                Err(error) => as_json(&json!({ "error": error.message(), "errorDetail": { "message": error.message() } })),
            }
        }
        ("DELETE", _) => match daemon.images.lock().unwrap().remove(rest) {
            Some(_) => as_json(&json!([])),
            None => missing(),
        },
        _ => answer(501, &[], json!({ "message": format!("the model has no {method} of images: {rest}") }).to_string()),
    }
}
