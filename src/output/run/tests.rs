//! Tests the format of the report, which is a stable contract.

use super::*;
use crate::output::mounts::MountSeconds;

fn keys(value: &serde_json::Value, path: &str, out: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                out.push(format!("{path}.{key}"));
                keys(value, &format!("{path}.{key}"), out);
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| keys(value, &format!("{path}[]"), out)),
        _ => {}
    }
}

#[test]
fn the_contracts_example_has_our_keys() {
    // The example of command-line.md, verbatim.
    let example = r#"{"schema":1,"version":"0.1.0","outcome":"success","tier":"append","strategy":"auto",
 "ci":{"provider":"codebuild","commit":"2f1c…"},
 "engine":{"version":"28.5.2","store":"graphdriver","transport":"registry"},
 "images":[{"id":"sha256:…","config":"sha256:…","digest":"sha256:…","platform":"linux/amd64","tier":"append",
            "tags":[{"ref":"…","pushed":true}]}],
 "cache":{"url":"s3://…","scope":"main","fallbacks":[],"mode":"read-write","warnings":[]},
 "steps":[{"stage":"final","line":9,"instruction":"COPY app /app","status":"miss","reason":"app/f7.py changed","key":"…"}],
 "advice":[{"file":"Dockerfile","line":3,"seconds":41.2,"text":"…"}],
 "mounts":[{"id":"/root/.cache","brought_in":467000000,"saved":5000000,"files":9000,"reason":"","seconds":{"bring":3.1,"save":1.2}},
           {"id":"/obj","brought_in":null,"saved":null,"files":0,"reason":"no build has saved it","seconds":{"bring":null,"save":null}}],
 "layers":{"restored":0,"saved":1,"pushed":1,"already_in_registry":4},
 "bytes":{"context":0,"restored":0,"saved":0,"pushed":0},
 "seconds":{"plan":0.1,"restore":0.0,"build":0.0,"save":0.1,"push":0.2,"total":0.4},
 "last_cold":{"seconds":83.1,"ended":"2026-11-25T10:00:00Z"}}"#;
    let report = RunReport {
        version: "0.1.0".into(),
        outcome: Outcome::Success,
        tier: Tier::Append,
        ci: CiReport { provider: "codebuild".into(), commit: "2f1c…".into() },
        engine: EngineReport {
            version: "28.5.2".into(),
            store: ImageStore::Graphdriver,
            transport: Transport::Registry,
            disk: None,
        },
        images: vec![ImageReport {
            id: "sha256:…".into(),
            config: "sha256:…".into(),
            digest: "sha256:…".into(),
            platform: "linux/amd64".into(),
            tier: Tier::Append,
            tags: vec![TagReport { reference: "…".into(), pushed: true }],
        }],
        cache: CacheReport { url: "s3://…".into(), scope: "main".into(), mode: CacheMode::ReadWrite, ..CacheReport::default() },
        steps: vec![StepReport {
            stage: "final".into(),
            line: 9,
            instruction: "COPY app /app".into(),
            status: StepStatus::Miss,
            reason: "app/f7.py changed".into(),
            key: "…".into(),
        }],
        advice: vec![AdviceReport { file: "Dockerfile".into(), line: 3, seconds: Some(41.200_04), text: "…".into() }],
        mounts: vec![
            MountReport {
                id: "/root/.cache".into(),
                brought_in: Some(467_000_000),
                saved: Some(5_000_000),
                files: 9000,
                reason: String::new(),
                seconds: MountSeconds { bring: Some(3.100_04), save: Some(1.2) },
            },
            MountReport { id: "/obj".into(), reason: "no build has saved it".into(), ..MountReport::default() },
        ],
        layers: LayerCounts { saved: 1, pushed: 1, already_in_registry: 4, ..LayerCounts::default() },
        seconds: Seconds { plan: 0.1, save: 0.1, push: 0.2, total: 0.400_04, ..Seconds::default() },
        last_cold: Some(ColdReport { seconds: 83.100_04, ended: "2026-11-25T10:00:00Z".into() }),
        ..RunReport::default()
    };
    let example: serde_json::Value = serde_json::from_str(example).unwrap();
    let ours: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(ours, example);
}

#[test]
fn a_run_that_stopped_at_once_has_every_key() {
    let report: serde_json::Value = serde_json::from_str(&RunReport::default().to_json()).unwrap();
    let mut found = Vec::new();
    keys(&report, "", &mut found);
    assert_eq!(found.len(), 16 + 2 + 3 + 5 + 4 + 4 + 6);
    assert_eq!(report["outcome"], "failure");
    assert_eq!(report["engine"], serde_json::json!({"version": "", "store": "none", "transport": "none"}));
}

#[test]
fn words() {
    let words = serde_json::json!([
        CacheMode::ReadOnly,
        StepStatus::Uncacheable,
        ImageStore::Containerd,
        Transport::Archive,
        Outcome::Skipped
    ]);
    assert_eq!(words, serde_json::json!(["read-only", "uncacheable", "containerd", "archive", "skipped"]));
}

#[test]
fn written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    RunReport::default().write(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), RunReport::default().to_json());
    assert!(RunReport::default().write(&folder.path().join("no/such")).is_err());
}
