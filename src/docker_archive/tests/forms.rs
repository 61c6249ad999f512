//! Reads every form of archive that Docker, skopeo and buildx write.

use super::*;

#[tokio::test]
async fn docker_up_to_24() {
    let (base, top) = (layer("base"), layer("top"));
    let (one, other) = (config(&[&base, &top]), config(&[&base, &top, &base]));
    let row = |config: &[u8], tags: Value, layers: &[&str]| {
        let layers: Vec<_> = layers.iter().map(|id| format!("{id}/layer.tar")).collect();
        json!({ "Config": format!("{}.json", Digest::hash(config).hex()), "RepoTags": tags, "Layers": layers })
    };
    let archive = Tar::default()
        .directory("a/")
        .file("a/VERSION", b"1.0")
        .json("a/json", &json!({ "id": "a", "os": "linux" }))
        .file("a/layer.tar", &base)
        .file("b/layer.tar", &top)
        .link("c/layer.tar", "../a/layer.tar")
        .entry("d/layer.tar", b'1', "b/layer.tar", 0, b"")
        .file(&format!("{}.json", Digest::hash(&one).hex()), &one)
        .file(&format!("{}.json", Digest::hash(&other).hex()), &other)
        .json(
            "manifest.json",
            &json!([
                row(&one, json!(["app:1", "r.example:5000/app:2"]), &["a", "d"]),
                row(&other, Value::Null, &["a", "b", "c"])
            ]),
        )
        .json("repositories", &json!({ "app": { "1": "b" } }))
        .end();
    let mut recorder = Recorder::new();
    let images = read_into(&mut recorder, &archive).await.expect("read");
    let tags = vec!["docker.io/library/app:1".to_owned(), "r.example:5000/app:2".to_owned()];
    assert_eq!(images.iter().map(seen).collect::<Vec<_>>(), [(tags, ids(&[&base, &top])), (vec![], ids(&[&base, &top, &base]))]);
    assert_eq!(images[0].config, one);
    assert_eq!(images[0].manifest, None);
    assert_eq!(recorder.seen, [(None, Format::Tar), (None, Format::Tar)], "each layer once");
    assert_eq!(images[1].layers[2], descriptor(media_type::OCI_LAYER, &base));
    // The whole archive may be compressed.
    assert_eq!(read_all(&gzip(&archive)).await, images);
    assert_eq!(read_all(&zstd(&archive)).await, images);
}

#[tokio::test]
async fn docker_25_and_later() {
    let (base, top) = (layer("base"), layer("top"));
    let archive = docker_25(&[&base, &top], &["app:1", "app:2"]);
    let mut recorder = Recorder::new();
    recorder.compression = Some(Compression::Gzip(6));
    let images = read_into(&mut recorder, &archive.clone().end()).await.expect("read");
    assert_eq!(images.len(), 1);
    let tags = vec!["docker.io/library/app:1".to_owned(), "docker.io/library/app:2".to_owned()];
    assert_eq!(seen(&images[0]), (tags, ids(&[&base, &top])));
    assert_eq!(recorder.seen, [(Some(Digest::hash(&base)), Format::Tar), (Some(Digest::hash(&top)), Format::Tar)]);
    assert!(images[0].manifest.is_some());
    // The recorder stores the layers in the requested compression.
    let kept = all(crate::transfer::BlobSource::open(&recorder.kept[0].blob, 0).await.expect("opened")).await.expect("read");
    assert_eq!(images[0].layers[0], descriptor(media_type::OCI_LAYER_GZIP, &kept));
    assert_eq!(all(Format::Gzip.decompress(stream(kept))).await.expect("read"), base);
    // Go's reader, and so Docker, accepts a tar without its end marker.
    assert_eq!(read_all(&archive.0).await[0].diff_ids, images[0].diff_ids);
}

#[tokio::test]
async fn what_is_known_is_not_read_but_still_verified() {
    let (base, top) = (layer("base"), layer("top"));
    let kept = StoredLayer { diff_id: DiffId::hash(&base), descriptor: descriptor(media_type::OCI_LAYER_ZSTD, b"elsewhere") };
    let mut recorder = Recorder::new();
    recorder.known.insert(Digest::hash(&base), kept.clone());
    let archive = docker_25(&[&base, &top], &["app:1"]).end();
    let images = read_into(&mut recorder, &archive).await.expect("read");
    assert_eq!(images[0].layers[0], kept.descriptor);
    assert_eq!(recorder.kept.len(), 1);
    let mut damaged = archive;
    let place = damaged.windows(4).position(|window| window == b"base").expect("the content");
    damaged[place] = b'c';
    let error = read_into(&mut recorder, &damaged).await.expect_err("damaged").to_string();
    assert!(error.contains(&blob(&base)) && error.contains("is damaged"), "{error}");
}

#[tokio::test]
async fn the_containerd_store() {
    let (base, top) = (layer("base"), layer("top"));
    let (base_blob, top_blob) = (gzip(&base), zstd(&top));
    let config = config(&[&base, &top]);
    let manifest = manifest(&config, &[&base_blob, &top_blob]);
    // The index also has an attestation, and a platform that was not pulled.
    let statement = json!({ "_type": "https://in-toto.io/Statement/v0.1", "predicate": {} }).to_string();
    let attestation = super::manifest(b"{}", &[statement.as_bytes()]);
    let mut unknown = attestation.descriptor();
    unknown.annotations.insert("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned());
    let absent = descriptor(media_type::OCI_MANIFEST, b"not pulled");
    let inner = index(&[manifest.descriptor(), unknown, absent]).to_string();
    let inner = RawManifest { media_type: media_type::OCI_INDEX.to_owned(), bytes: inner.into() };
    let row = json!({ "Config": blob(&config), "RepoTags": ["app:1"], "Layers": [blob(&base_blob), blob(&top_blob)] });
    let archive = Tar::default()
        .blob(&top_blob)
        .blob(&base_blob)
        .blob(&base_blob)
        .blob(statement.as_bytes())
        .blob(&attestation.bytes)
        .blob(&config)
        .blob(&manifest.bytes)
        .blob(&inner.bytes)
        .json("index.json", &index(&[named(&inner, "docker.io/library/app:1"), named(&inner, "docker.io/library/app:2")]));
    let mut recorder = Recorder::new();
    recorder.compression = Some(Compression::Gzip(6));
    let images = read_into(&mut recorder, &archive.clone().json("manifest.json", &json!([row])).end()).await.expect("read");
    assert_eq!(images.len(), 1);
    let tags = vec!["docker.io/library/app:1".to_owned(), "docker.io/library/app:2".to_owned()];
    assert_eq!(seen(&images[0]), (tags, ids(&[&base, &top])));
    assert_eq!(images[0].manifest.as_ref(), Some(&manifest));
    assert_eq!(recorder.seen.len(), 2, "the same blob again is passed over: {:?}", recorder.seen);
    // Compressed layers stay unchanged.
    let expected = [descriptor(media_type::OCI_LAYER_GZIP, &base_blob), descriptor(media_type::OCI_LAYER_ZSTD, &top_blob)];
    assert_eq!(images[0].layers, expected);
    // The same archive without Docker's own list.
    assert_eq!(read_all(&archive.end()).await, images);
}

#[tokio::test]
async fn an_oci_archive_may_name_its_images_or_not() {
    let base = layer("base");
    let config = config(&[&base]);
    let manifest = manifest(&config, &[&gzip(&base)]);
    for (name, tags) in
        [("latest", vec![]), ("app:1", vec!["docker.io/library/app:1"]), ("r.example/app", vec!["r.example/app:latest"])]
    {
        let mut child = manifest.descriptor();
        child.annotations.insert("org.opencontainers.image.ref.name".to_owned(), name.to_owned());
        let archive = Tar::default()
            .json("./oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))
            .json("./index.json", &index(&[child]))
            .file(&format!("./{}", blob(&gzip(&base))), &gzip(&base))
            .blob(&config)
            .blob(&manifest.bytes)
            .end();
        let images = read_all(&archive).await;
        assert_eq!(seen(&images[0]), (tags.into_iter().map(str::to_owned).collect(), ids(&[&base])), "{name}");
    }
}

#[tokio::test]
async fn several_platforms_are_several_images() {
    let (base, arm) = (layer("base"), layer("arm"));
    let (one, other) = (config(&[&base]), config(&[&arm]));
    let manifests = [manifest(&one, &[&base]), manifest(&other, &[&arm])];
    let inner = index(&[manifests[0].descriptor(), manifests[1].descriptor()]).to_string();
    let inner = RawManifest { media_type: media_type::OCI_INDEX.to_owned(), bytes: inner.into() };
    let row = json!({ "Config": blob(&one), "RepoTags": ["app:1"], "Layers": [blob(&base)] });
    let archive = Tar::default().blob(&base).blob(&arm).blob(&one).blob(&other).blob(&manifests[0].bytes);
    let archive = archive.blob(&manifests[1].bytes).blob(&inner.bytes).json("manifest.json", &json!([row]));
    let images = read_all(&archive.json("index.json", &index(&[named(&inner, "docker.io/library/app:1")])).end()).await;
    let tags = vec!["docker.io/library/app:1".to_owned()];
    assert_eq!(images.iter().map(seen).collect::<Vec<_>>(), [(tags.clone(), ids(&[&base])), (tags, ids(&[&arm]))]);
}

#[tokio::test]
async fn long_names_and_sizes_of_both_extensions() {
    let base = layer("base");
    let config = config(&[&base]);
    let long = "d".repeat(150);
    let path = format!("{long}/layer.tar");
    let row = json!([{ "Config": "c.json", "RepoTags": null, "Layers": [path] }]);
    let rest = |tar: Tar| tar.file("c.json", &config).json("manifest.json", &row).end();
    let gnu =
        Tar::default().file("x", b"").entry("././@LongLink", b'L', "", path.len() as u64 + 1, format!("{path}\0").as_bytes());
    let pax = |records: &[String]| -> Vec<u8> {
        let line = |record: &String| {
            let length = (record.len() + 5).to_string();
            assert_eq!(length.len(), 3);
            format!("{length} {record}\n")
        };
        records.iter().map(line).collect::<String>().into_bytes()
    };
    let records = pax(&[format!("path={path}"), format!("size={:0>100}", base.len())]);
    let pax = Tar::default().entry("g", b'g', "", 13, b"13 comment=x\n").file("PaxHeader", b"").entry(
        "h",
        b'x',
        "",
        records.len() as u64,
        &records,
    );
    for tar in [gnu.file("short", &base), pax.entry("short", b'0', "", 0, &base)] {
        assert_eq!(read_all(&rest(tar)).await[0].diff_ids, ids(&[&base]));
    }
}

#[tokio::test]
async fn odd_layers() {
    // The layers: one whose first file name looks like JSON, one without bytes, which moby accepts too, and one without entries.
    // Then an image without layers.
    let braces = Tar::default().file("{}", b"x").end();
    let nothing = vec![0; 1024];
    let layers: [&[u8]; 3] = [&braces, b"", &nothing];
    let images = read_all(&docker_25(&layers, &["app:1"]).end()).await;
    assert_eq!(images[0].diff_ids, ids(&layers));
    let images = read_all(&docker_25(&[], &["scratch:1"]).end()).await;
    assert_eq!(images[0].diff_ids, []);
    let config = bytes(r#"{"rootfs":{"type":"layers","diff_ids":null}}"#);
    let row = json!([{ "Config": "c.json", "RepoTags": null, "Layers": null }]);
    let images = read_all(&Tar::default().file("c.json", &config).json("manifest.json", &row).end()).await;
    assert_eq!((images[0].diff_ids.len(), &images[0].config), (0, &config));
}
