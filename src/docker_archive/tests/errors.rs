//! Snapshots of the errors of archives.

use super::super::{Encoding, Error, SavedImage, write};
use super::*;

/// A reader of layers that fails.
struct Full;

#[async_trait]
impl Layers for Full {
    async fn layer(&mut self, _: Layer) -> io::Result<StoredLayer> {
        Err(io::Error::other("No space left on device"))
    }
}

async fn told(archives: &[Vec<u8>]) -> String {
    let mut out = String::new();
    for archive in archives {
        out.push_str(&format!("{}\n", refused(archive).await));
    }
    out
}

#[tokio::test]
async fn what_is_no_archive() {
    let archives = [
        Vec::new(),
        b"hello".to_vec(),
        b"BZh91AY".to_vec(),
        b"\xfd7zXZ\0".to_vec(),
        Tar::default().file("a", b"b").end(),
        Tar::default().json("manifest.json", &json!([])).end(),
        Tar::default().json("manifest.json", &json!({})).end(),
        Tar::default().file("manifest.json", b"[").end(),
        Tar::default().file("manifest.json", b"x").end(),
        Tar::default().file("manifest.json", &layer("x")).end(),
        Tar::default().json("index.json", &json!({ "schemaVersion": 2, "manifests": [] })).end(),
    ];
    insta::assert_snapshot!("what-is-no-archive", told(&archives).await);
}

#[tokio::test]
async fn damaged_and_hostile_entries() {
    let whole = docker_25(&[&layer(&"base".repeat(1000))], &["app:1"]).end();
    let mut header = Tar::default().file("a", b"b").end();
    header[1024] = b'x';
    let mut changed = whole.clone();
    let place = whole.windows(8).position(|window| window == b"basebase").expect("the content");
    changed[place] = b'c';
    let record = b"22 GNU.sparse.major=1\n";
    let archives = [
        whole[..whole.len() / 2].to_vec(),
        whole[..700].to_vec(),
        changed,
        header,
        Tar::default().file("../x", b"y").end(),
        Tar::default().file("/etc/passwd", b"y").end(),
        Tar::default().link("a", "../../etc").end(),
        Tar::default().file("a\x1b[31m", b"y").end(),
        Tar::default().entry("L", b'L', "", 5000, "a".repeat(5000).as_bytes()).file("a", b"b").end(),
        Tar::default().entry("a", b'S', "", 512, &[1; 512]).end(),
        Tar::default().entry("h", b'x', "", record.len() as u64, record).file("a", b"b").end(),
        Tar::default().entry("h", b'x', "", 1 << 40, b"").end(),
        Tar::default().entry("h", b'x', "", 5, b"9 a=b").end(),
        Tar::default().entry("a", b'0', "", u64::MAX, b"").end(),
    ];
    let mut out = told(&archives).await;
    let compressed = gzip(&whole);
    let cut = read_into(&mut Recorder::new(), &compressed[..compressed.len() / 2]).await.expect_err("cut off");
    let full = read(stream(whole), &mut Full).await.expect_err("no space");
    out.push_str(&format!("{cut}\n{full}\n"));
    insta::assert_snapshot!("damaged-and-hostile-entries", out);
}

#[tokio::test]
async fn images_that_do_not_fit_together() {
    let (base, top) = (layer("base"), layer("top"));
    let good = config(&[&base, &top]);
    let image = |config: &[u8], layers: Value, tag: &str| {
        let row = json!([{ "Config": "c.json", "RepoTags": [tag], "Layers": layers }]);
        let tar = Tar::default().file("a/layer.tar", &base).file("b/layer.tar", &top).file("text", b"hi").file("c.json", config);
        tar.json("manifest.json", &row).end()
    };
    let large: Vec<String> = vec!["a/layer.tar".to_owned(); 1001];
    let many: Vec<&[u8]> = vec![&base; 1001];
    let other = format!("{}.json", Digest::hash(b"other").hex());
    let row = json!([{ "Config": other, "RepoTags": null, "Layers": [] }]);
    let manifest = manifest(&good, &[&base, &top]);
    let top_index = index(&[named(&manifest, "docker.io/library/app:1")]);
    let archives = [
        image(&good, json!(["b/layer.tar", "a/layer.tar"]), "app:1"),
        image(&good, json!(["a/layer.tar"]), "app:1"),
        image(&config(&many), json!(large), "app:1"),
        image(&good, json!(["a/layer.tar", "x"]), "app:1"),
        image(&good, json!(["a/layer.tar", "text"]), "app:1"),
        image(&good, json!(["a/layer.tar", "c.json"]), "app:1"),
        image(b"{}", json!([]), "app:1"),
        image(br#"{"rootfs":{"diff_ids":["sha256:x"]}}"#, json!([]), "app:1"),
        image(&base, json!([]), "app:1"),
        image(&good, json!(["a/layer.tar", "b/layer.tar"]), "Not A Name"),
        Tar::default().file(&other, &config(&[])).json("manifest.json", &row).end(),
        Tar::default().json("index.json", &top_index).end(),
        Tar::default().file(&blob(&manifest.bytes), &layer("other")).json("index.json", &top_index).end(),
    ];
    let mut out = told(&archives).await;
    for config in [good, b"{}".to_vec()] {
        let tags = vec!["app:1".parse().expect("a name")];
        let image = SavedImage { tags, config: config.into(), layers: Vec::new(), manifest: None };
        let error: Error = write(vec![image], Encoding::Stored, std::path::Path::new("")).err().expect("does not fit");
        out.push_str(&format!("{error}\n"));
    }
    insta::assert_snapshot!("images-that-do-not-fit-together", out);
}
