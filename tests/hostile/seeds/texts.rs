//! Seeds that are text: records, manifests, ignore files and others.

use hakobi::domain::Digest;
use serde_json::{Value, json};

use super::{Seed, files::gzip, seed};

pub fn seeds() -> Vec<Seed> {
    [records(), objects(), manifests(), ignore_files(), credentials(), mounts(), caches()].concat()
}

pub fn digest(text: &str) -> String {
    Digest::hash(text.as_bytes()).to_string()
}

fn records() -> Vec<Seed> {
    let blob =
        |size: Value| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest("blob"), "size": size});
    let layer = |size: Value| json!({"blob": blob(size), "diff_id": digest("tar"), "created": "2024-01-01T00:00:00Z"});
    let record = |name: &str, value: Value| seed("record", name, value.to_string());
    vec![
        record("step", json!({"layers": [layer(json!(100)), layer(json!(100))], "ran": 1})),
        record("step-huge", json!({"layers": [layer(json!(u64::MAX))], "ran": u64::MAX})),
        record("step-negative", json!({"layers": [layer(json!(-1))]})),
        record("copied", json!({"content": digest("content"), "chain": digest("chain")})),
        record("daemon", json!({"mark": "../x", "states": [digest("state")]})),
        record("image", json!({"manifest": blob(json!(7))})),
        record("cold", json!({"seconds": 12.5, "ended": 1_700_000_000})),
        seed("record", "cold-huge", r#"{"seconds":1e308,"ended":18446744073709551615}"#),
        record("remote", json!({"etag": "\"x\"", "modified": "Thu, 01 Jan 1970 00:00:00 GMT", "content": digest("file")})),
        record("path", json!({"has_files": true})),
        record("empty", json!({})),
        record(
            "compiled",
            json!({"definition": "CgIKAA==", "config": "{}", "engine": "", "references": {"busybox": digest("a")},
                "images": {"x": [digest("tar")]}}),
        ),
        record("inputs", json!({"steps": {}, "sources": {}, "arguments": {}})),
        seed("record", "deep", format!("{{\"layers\":{}{}}}", "[".repeat(3000), "]".repeat(3000))),
    ]
}

fn objects() -> Vec<Seed> {
    let sealed = |record: &str| {
        let seal = Digest::hash(format!("hakobi record 2\n{}\n{record}", digest("key")).as_bytes());
        gzip(format!(r#"{{"version":2,"seal":"{seal}","record":{record}}}"#).as_bytes())
    };
    vec![
        seed("object", "record", sealed(r#"{"layers":[]}"#)),
        seed("object", "record-of-version-3", gzip(br#"{"version":3,"record":{}}"#)),
        seed("object", "record-cut", {
            let whole = sealed(r#"{"layers":[]}"#);
            whole[..whole.len() - 4].to_vec()
        }),
        seed("object", "record-bomb", gzip(&vec![b' '; 5 << 20])),
        seed("object", "blob", "other"),
        seed("object", "empty", ""),
        seed("object", "name-used", "uses/main/app%3Alatest/20000-0123456789abcdef"),
        seed("object", "name-used-long-ago", "uses/a/b/18446744073709551615-"),
        seed("object", "name-above", "refs/../../outside"),
        seed("object", "name-pointer", "refs/main/%00%2F..%"),
    ]
}

fn manifests() -> Vec<Seed> {
    let descriptor =
        |size: Value| json!({"mediaType": "", "digest": digest("x"), "size": size, "urls": ["https://example.invalid/x"]});
    let record = |inputs: Value| json!({"digest": digest("step"), "inputs": inputs, "layers": [{"layer": 0}], "chains": [{"layers": [0, 1]}]});
    let inline = json!([record(json!([])), record(json!([[{"link": 0, "selector": "/a"}]]))]);
    let with_inline = |records: &Value| {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(records.to_string());
        json!({"os": "linux", "architecture": "arm64", "variant": "v8", "created": "x", "history": [{"created": "y"}, 1],
            "rootfs": {"diff_ids": [digest("a"), digest("b")]}, "moby.buildkit.cache.v0": text})
    };
    let json = |name: &str, value: Value| seed("manifest", name, value.to_string());
    vec![
        json(
            "manifest",
            json!({"schemaVersion": 2, "config": descriptor(json!(2)), "layers": [descriptor(json!(3))], "annotations": {"a": "b"}}),
        ),
        json("manifest-null", json!({"schemaVersion": 2, "config": descriptor(json!(2)), "layers": null})),
        json(
            "manifest-huge",
            json!({"schemaVersion": 2, "config": descriptor(json!(u64::MAX)), "layers": [descriptor(json!(-1))]}),
        ),
        json(
            "index",
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [{"digest": digest("m"), "size": 1,
                "platform": {"os": "windows", "architecture": "amd64", "os.version": "10", "os.features": ["x"], "more": {"a": [1.5e10]}}}]}),
        ),
        json("config", with_inline(&inline)),
        json("inline-cache", inline),
        json("inline-cache-circle", json!([record(json!([[{"link": 1}]])), record(json!([[{"link": 0}]]))])),
        json("inline-cache-beyond", json!([record(json!([[{"link": u64::MAX}]]))])),
        seed("manifest", "deep", "{\"manifests\":".repeat(500)),
        seed("manifest", "duplicate", r#"{"schemaVersion":2,"layers":[],"layers":[],"manifests":[]}"#),
        seed("manifest", "reference", format!("registry.example.com:5000/team/app:v1@{}", digest("x"))),
        seed("manifest", "reference-v6", "[::1]:5000/app"),
        seed("manifest", "platform", "windows(10.0.20348)/amd64/v2"),
        seed("manifest", "platform-odd", "a(b)(c)/d"),
    ]
}

fn ignore_files() -> Vec<Seed> {
    let stars = format!("{}b\n{}c\n{}c\n", "a".repeat(60), "*a".repeat(30), "**/*a".repeat(12));
    vec![
        seed("ignore", "usual", "src/target/x.o\n**/target\n!**/*.rs\n/docs\n.git\n*.[oa]\nb?r/\n# text\n\n  \n"),
        seed("ignore", "stars", stars),
        seed("ignore", "repeats", "a\n[a]{1000}{1000}\n[a]{1001}\n[ab]{99,100}{2}x\n(a*)*b\n"),
        seed("ignore", "classes", "a/]b\n[^a]\n[z-a]\n[\\]]\n[[:alpha:]\n[a-\\x]\n\\d\\1\n[!\n"),
        seed("ignore", "above", "../a\n..\n../../x\n/../..\n!..\n!\n./.\n"),
        seed("ignore", "no-utf8", b"a\xff\xc3\n\xff*\n[\xc3\xa4\xff]\n\xef\xbb\xbf*\n".as_slice()),
        seed("ignore", "long", format!("{}\n{}\n", "a/".repeat(2000), "?".repeat(100))),
        seed("ignore", "percent", "a%00b%\n%ff%\n%41\n"),
    ]
}

fn credentials() -> Vec<Seed> {
    let config = |name: &str, text: &str| seed("credentials", name, text);
    vec![
        config(
            "all",
            r#"{"auths":{"ghcr.io":{"auth":"dTpw"},"https://index.docker.io/v1/":{"username":"u","password":"p"},"x":{"identitytoken":"t"},"y":null}}"#,
        ),
        config("helpers", r#"{"credsStore":"absent-of-hakobi","credHelpers":{"ghcr.io":"../../absent-of-hakobi"}}"#),
        config("no-base64", r#"{"auths":{"ghcr.io":{"auth":"%%"},"docker.io":{"auth":"////"}}}"#),
        config("no-user", r#"{"auths":{"ghcr.io":{"auth":"dXA="}}}"#),
        config("no-json", "{\"auths\":"),
        config("deep", &"{\"auths\":".repeat(1000)),
        config("host-ecr", "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/v2/"),
        config("host-v6", "[::1]:5000"),
    ]
}

fn mounts() -> Vec<Seed> {
    let fill = |entries: Value, rest: &str| {
        let entries = json!({"ask": "entries", "mount": 0, "entries": entries});
        format!(
            "{{\"ask\":\"look\",\"mount\":0}}\n{{\"ask\":\"fill\",\"mount\":0}}\n{entries}\n{rest}\n{{\"ask\":\"finish\",\"mount\":0}}\n"
        )
    };
    let entry = |path: &str, kind: Value| {
        let mut entry = json!({"path": path, "mode": 0o755, "uid": 0, "gid": 0, "modified": 5});
        entry.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
        entry
    };
    let root = || entry("", json!({"kind": "directory"}));
    let file = |path: &str, size: u64| entry(path, json!({"kind": "file", "size": size}));
    let link = |path: &str, target: &str| entry(path, json!({"kind": "link", "target": target}));
    let data = |file: u32, offset: u64| format!("{{\"ask\":\"data\",\"mount\":0,\"file\":{file},\"offset\":{offset}}}\tdata");
    vec![
        seed(
            "mounts",
            "list",
            "{\"ask\":\"list\",\"mount\":0,\"since\":-9223372036854775808}\n{\"ask\":\"send\",\"mount\":0,\"files\":[1,4294967295,1]}\n",
        ),
        seed("mounts", "fill", fill(json!([root(), file("a", 4), link("b", "a")]), &data(1, 0))),
        seed("mounts", "fill-huge", fill(json!([root(), file("a", u64::MAX)]), &data(1, u64::MAX - 1))),
        seed("mounts", "fill-above", fill(json!([root(), file("../outside", 4)]), &data(1, 0))),
        seed("mounts", "fill-absolute", fill(json!([root(), file("/absent-of-hakobi/outside", 4)]), &data(1, 0))),
        seed("mounts", "fill-through-link", fill(json!([root(), link("l", ".."), file("l/outside", 4)]), &data(2, 0))),
        seed("mounts", "fill-no-root", fill(json!([file("a", 4)]), &data(9, 0))),
        seed(
            "mounts",
            "fill-time",
            fill(
                json!([root(), {"path": "a", "kind": "file", "size": 0, "mode": 4_294_967_295u32, "uid": 4_294_967_295u32, "gid": 0, "modified": i64::MIN}]),
                "",
            ),
        ),
        seed(
            "mounts",
            "abandon",
            "{\"ask\":\"fill\",\"mount\":0}\n{\"ask\":\"abandon\",\"mount\":0}\n{\"ask\":\"finish\",\"mount\":0}\n",
        ),
        seed("mounts", "other-mount", "{\"ask\":\"look\",\"mount\":18446744073709551615}\n"),
        seed("mounts", "raw-length", b"\xff\xff\xff\xff\xff\xff\xff\xff{}".as_slice()),
        seed("mounts", "raw-cut", b"\0\0\0\x10\0\x10\0\0{\"ask\":\"look\",".as_slice()),
    ]
}

fn caches() -> Vec<Seed> {
    let uses =
        json!({"version": 1, "records": ["steps/main/x", "refs/main/app%3Alatest", "../x", "blobs/sha256/y"], "is_whole": true});
    let pointer = |name: &str| format!("refs/main/other\n{{\"digest\":\"{}\"}}\n--\n{uses}", digest(name));
    vec![
        seed("upkeep", "uses", uses.to_string()),
        seed(
            "upkeep",
            "uses-of-day",
            format!("uses/main/app%3Alatest/18446744073709551615-0123456789abcdef\n{uses}\n--\nuses/main/app/-1-x\n{uses}"),
        ),
        seed(
            "upkeep",
            "uses-twice",
            format!("uses/a/b/20000-0123456789abcdef\n{uses}\n--\nuses/a/b/20001-0123456789abcdef\n{uses}"),
        ),
        seed("upkeep", "pointer", pointer("{}")),
        seed("upkeep", "pointer-absent", pointer("absent")),
        seed(
            "upkeep",
            "marks",
            format!("prune/marks.json\n{{\"version\":1,\"unused\":{{\"{}\":18446744073709551615}}}}", digest("{}")),
        ),
        seed("upkeep", "marks-deep", format!("prune/marks.json\n{}", "[".repeat(2000))),
        seed("upkeep", "records", "steps/main/x\nnothing\n--\nsums/sha256/x\n\n--\nunknown\nz"),
    ]
}
