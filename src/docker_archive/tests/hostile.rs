//! Reads archives that are damaged, truncated or malicious.

use super::*;

fn base() -> Vec<u8> {
    layer(&"base".repeat(1000))
}

fn whole() -> Vec<u8> {
    docker_25(&[&base(), &layer("top")], &["app:1"]).end()
}

#[tokio::test]
async fn what_is_no_archive() {
    for (bytes, words) in [
        (&b""[..], "it is empty"),
        (b"hello", "not a tar archive"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (&Tar::default().file("a", b"b").end(), "neither a manifest.json nor an index.json"),
        (&[0; 1024], "neither a manifest.json nor an index.json"),
        (&Tar::default().json("manifest.json", &json!([])).end(), "has no image"),
        (&Tar::default().json("manifest.json", &json!({})).end(), "failed to read the archive's manifest.json"),
        (&Tar::default().file("manifest.json", b"[").end(), "failed to read the archive's manifest.json"),
        (&Tar::default().file("manifest.json", b"x").end(), "manifest.json is not a tar archive"),
        (&Tar::default().json("index.json", &json!({ "schemaVersion": 2, "manifests": [] })).end(), "has no image"),
    ] {
        let error = refused(bytes).await;
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[tokio::test]
async fn cut_off_anywhere() {
    let whole = whole();
    // The end marker is optional, but all bytes before it are needed.
    let needed = whole.len() - 1024 - 1024;
    for length in (0..needed).step_by(97) {
        let error = refused(&whole[..length]).await;
        assert!(!error.is_empty(), "{length}");
    }
    let error = refused(&whole[..whole.len() / 2]).await;
    assert!(error.contains("truncated"), "{error}");
    for compressed in [gzip(&whole), zstd(&whole)] {
        for length in [compressed.len() / 2, compressed.len() - 6] {
            let error = read_into(&mut Recorder::new(), &compressed[..length]).await.expect_err("cut off");
            assert!(matches!(error, super::super::Error::Read(_)), "{error}");
        }
    }
}

#[tokio::test]
async fn damaged_anywhere_never_passes_for_another() {
    let whole = whole();
    let images = read_all(&whole).await;
    let mut refusals = 0;
    for place in (0..whole.len()).step_by(61) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x10;
        // A flipped bit in padding or in unread bytes has no effect.
        match read_into(&mut Recorder::new(), &damaged).await {
            Ok(read) => {
                let same = |image: &ArchivedImage| (image.config.clone(), image.layers.clone());
                assert_eq!(read.iter().map(same).collect::<Vec<_>>(), images.iter().map(same).collect::<Vec<_>>(), "{place}");
            }
            Err(_) => refusals += 1,
        }
    }
    assert!(refusals > 50, "{refusals}");
}

#[tokio::test]
async fn names_and_links_that_lead_out() {
    for (tar, words) in [
        (Tar::default().file("../x", b"y"), "`..`"),
        (Tar::default().file("/etc/passwd", b"y"), "absolute"),
        (Tar::default().directory("a/../../"), "`..`"),
        (Tar::default().link("a", "../../etc"), "points outside"),
        (Tar::default().link("a", "/etc"), "points outside"),
        (Tar::default().entry("a", b'1', "../b", 0, b""), "`..`"),
        (Tar::default().file("a\x1b[31m", b"y"), "not valid text"),
    ] {
        let error = refused(&tar.end()).await;
        assert!(error.contains(words) && !error.contains('\x1b'), "{words}: {error}");
    }
}

#[tokio::test]
async fn devices_are_passed_over_and_sparse_files_refused() {
    let devices =
        Tar::default().entry("dev", b'3', "", 512, b"").entry("fifo", b'6', "", 7, b"").entry("odd", b'V', "", 3, b"abc");
    let rest = Tar(docker_25(&[&base()], &["app:1"]).0);
    assert_eq!(read_all(&[devices.0, rest.end()].concat()).await.len(), 1);
    let error = refused(&Tar::default().entry("a", b'S', "", 512, &[1; 512]).end()).await;
    assert!(error.contains("sparse"), "{error}");
    let record = b"22 GNU.sparse.major=1\n";
    let error = refused(&Tar::default().entry("h", b'x', "", record.len() as u64, record).file("a", b"b").end()).await;
    assert!(error.contains("sparse"), "{error}");
}

#[tokio::test]
async fn sizes_that_are_lies() {
    for (tar, words) in [
        (Tar::default().entry("h", b'x', "", 1 << 40, b""), "extended header of 1099511627776 bytes"),
        (Tar::default().entry("././@LongLink", b'L', "", 2 << 20, b""), "extended header"),
        (Tar::default().entry("h", b'x', "", 25, b"25 size=9223372036854775808\n"), "malformed"),
        (Tar::default().entry("a", b'0', "", u64::MAX, b""), "18446744073709551615 bytes"),
        (Tar::default().entry("a", b'0', "", 1 << 50, &base()), "ends in the middle of a"),
        (Tar::default().entry("h", b'x', "", 5, b"9 a=b"), "malformed extended header"),
    ] {
        let error = refused(&tar.end()).await;
        assert!(error.contains(words), "{words}: {error}");
    }
    let path = "a".repeat(5000);
    let error = refused(&Tar::default().entry("L", b'L', "", 5000, path.as_bytes()).file("a", b"b").end()).await;
    assert!(error.contains("5000 bytes"), "{error}");
}

#[tokio::test]
async fn more_than_is_held() {
    let mut many = Tar::default();
    let entry = Tar::default().file("a", b"").0;
    for _ in 0..=100_000 {
        many.0.extend(&entry);
    }
    let error = refused(&many.end()).await;
    assert!(error.contains("100000 entries"), "{error}");

    // Large JSON that no record refers to is skipped. As an image config it is rejected.
    let large = format!("{{\"rootfs\":{{}},\"x\":\"{}\"}}", "x".repeat(17 << 20));
    let rest = docker_25(&[&base()], &["app:1"]).0;
    assert_eq!(read_all(&Tar([Tar::default().blob(large.as_bytes()).0, rest].concat()).end()).await.len(), 1);
    let row = json!([{ "Config": "c.json", "RepoTags": ["app:1"], "Layers": [] }]);
    let error = refused(&Tar::default().file("c.json", large.as_bytes()).json("manifest.json", &row).end()).await;
    assert!(error.contains("image docker.io/library/app:1") && error.contains("the limit is"), "{error}");

    let mut several = Tar::default();
    for place in 0..5 {
        let json = format!("{{\"rootfs\":{{}},\"x\":\"{}\"}}", "x".repeat(15 << 20));
        several = several.file(&format!("{place}.json"), json.as_bytes());
    }
    let error = refused(&several.end()).await;
    assert!(error.contains("64 MiB"), "{error}");
}

#[tokio::test]
async fn images_that_are_not_what_they_say() {
    let (base, top) = (base(), layer("top"));
    let good = config(&[&base, &top]);
    let image = |config: &[u8], layers: Value| {
        let row = json!([{ "Config": "c.json", "RepoTags": ["app:1"], "Layers": layers }]);
        Tar::default()
            .file("a/layer.tar", &base)
            .file("b/layer.tar", &top)
            .file("text", b"hi")
            .file("c.json", config)
            .link("d", "e")
            .link("e", "d")
            .json("manifest.json", &row)
            .end()
    };
    let none = json!([]);
    for (archive, words) in [
        (image(&good, json!(["b/layer.tar", "a/layer.tar"])), "layer 1 of 2 (b/layer.tar) has the diff ID"),
        (image(&good, json!(["a/layer.tar", "a/layer.tar"])), "layer 2 of 2 (a/layer.tar) has the diff ID"),
        (image(&good, json!(["a/layer.tar"])), "it has 1 layer, but its configuration has 2"),
        (image(&good, json!(["a/layer.tar", "x"])), "layer 2 of 2 (x) is not in the archive"),
        (image(&good, json!(["a/layer.tar", "text"])), "layer 2 of 2 (text) is not a tar archive"),
        (image(&good, json!(["a/layer.tar", "c.json"])), "layer 2 of 2 (c.json) is JSON"),
        (image(&good, json!(["a/layer.tar", "d"])), "layer 2 of 2 (d) is not in the archive"),
        (image(&good, json!(["a/layer.tar", "../../etc/passwd"])), "`..`"),
        (image(b"{}", none.clone()), "c.json is JSON of another kind"),
        (image(br#"{"rootfs":{"diff_ids":["sha256:x"]}}"#, none.clone()), "failed to read the configuration c.json"),
        (image(&base, none), "c.json is a layer"),
    ] {
        let error = refused(&archive).await;
        assert!(error.contains(words), "{words}: {error}");
        assert!(error.contains("image docker.io/library/app:1") || words == "`..`", "{error}");
    }
    let row = json!([{ "Config": format!("{}.json", Digest::hash(b"other").hex()), "RepoTags": null, "Layers": [] }]);
    let archive =
        Tar::default().file(&format!("{}.json", Digest::hash(b"other").hex()), &config(&[])).json("manifest.json", &row);
    let error = refused(&archive.end()).await;
    assert!(error.contains("is damaged"), "{error}");
    let row = json!([{ "Config": "c.json", "RepoTags": ["Not A Name"], "Layers": [] }]);
    let error = refused(&Tar::default().file("c.json", &config(&[])).json("manifest.json", &row).end()).await;
    assert!(error.contains("Not A Name"), "{error}");
}

#[tokio::test]
async fn blobs_that_are_others() {
    let base = base();
    let config = config(&[&base]);
    let manifest = manifest(&config, &[&base]);
    let other = super::manifest(&super::config(&[]), &[]);
    let top = index(&[named(&manifest, "docker.io/library/app:1")]);
    let swapped = Tar::default().file(&blob(&base), &layer("other"));
    let error = refused(&swapped.end()).await;
    assert!(error.contains(&blob(&base)) && error.contains("have the digest"), "{error}");
    // A link in its place.
    let linked =
        Tar::default().blob(&base).blob(&config).blob(&other.bytes).link(&blob(&manifest.bytes), &blob(&other.bytes)[13..]);
    let error = refused(&linked.json("index.json", &top).end()).await;
    assert!(error.contains("have the digest"), "{error}");
    // A file that the layout itself names must exist.
    let error = refused(&Tar::default().json("index.json", &top).end()).await;
    assert!(error.contains("which does not exist"), "{error}");
}

#[tokio::test]
async fn indexes_without_end() {
    let config = config(&[]);
    let mut inner = manifest(&config, &[]);
    let mut tar = Tar::default().blob(&config).blob(&inner.bytes);
    for _ in 0..4 {
        let children: Vec<_> = (0..30).map(|_| inner.descriptor()).collect();
        inner = RawManifest { media_type: media_type::OCI_INDEX.to_owned(), bytes: index(&children).to_string().into() };
        tar = tar.blob(&inner.bytes);
    }
    let error = refused(&tar.clone().json("index.json", &index(&[inner.descriptor()])).end()).await;
    assert!(error.contains("too many nested indexes"), "{error}");
}

#[tokio::test]
async fn layers_that_cannot_be_decompressed() {
    let mut damaged = gzip(&base());
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    let error = refused(&docker_25(&[&damaged], &["app:1"]).end()).await;
    assert!(error.contains(&format!("failed to write the layer {}", blob(&damaged))), "{error}");
}

/// Fails if it holds true. Otherwise it returns a result without reading the layer.
struct Careless(bool);

#[async_trait]
impl Layers for Careless {
    async fn layer(&mut self, layer: Layer) -> io::Result<StoredLayer> {
        if self.0 {
            return Err(io::Error::other("the disk is full"));
        }
        let digest = layer.hint.unwrap_or_else(|| Digest::hash(b""));
        let diff_id = digest.to_string().parse().expect("a digest");
        Ok(StoredLayer { diff_id, descriptor: Descriptor::new("", digest, layer.size) })
    }
}

#[tokio::test]
async fn whose_fault_it_is_is_told() {
    let archive = whole();
    let error = read(stream(archive.clone()), &mut Careless(true)).await.expect_err("the disk is full");
    assert!(matches!(&error, super::super::Error::Keep { path, .. } if *path == blob(&base())), "{error}");
    assert!(read(stream(archive.clone()), &mut Careless(false)).await.is_ok());
    // Truncated in a layer that nobody reads.
    let place = archive.windows(8).position(|window| window == b"basebase").expect("the content");
    let error = read(stream(&archive[..place]), &mut Careless(false)).await.expect_err("cut off").to_string();
    assert!(error.contains("ends in the middle of blobs/sha256/"), "{error}");
}
