//! Reads the archives that hakobi writes. An image that cannot be written correctly gives an error.

use std::sync::Arc;

use super::super::{Encoding, SavedImage, SavedLayer, write};
use super::*;
use crate::domain::ImageRef;
use crate::transfer::BytesSource;

fn saved(raw: &[u8], blob: Vec<u8>, media_type: &str) -> SavedLayer {
    let descriptor = descriptor(media_type, &blob);
    SavedLayer { diff_id: DiffId::hash(raw), descriptor, blob: Some(Arc::new(BytesSource::new(blob.into()))) }
}

fn image(tags: &[&str], raw: &[&[u8]], layers: &[&SavedLayer]) -> SavedImage {
    let tags = tags.iter().map(|tag| tag.parse::<ImageRef>().expect("a name")).collect();
    SavedImage { tags, config: config(raw).into(), layers: layers.iter().map(|layer| (*layer).clone()).collect(), manifest: None }
}

async fn written(images: Vec<SavedImage>, encoding: Encoding) -> io::Result<Vec<u8>> {
    let directory = tempfile::tempdir().expect("a directory");
    let archive = all(write(images, encoding, directory.path()).expect("fits")).await;
    assert_eq!(std::fs::read_dir(directory.path()).expect("listed").count(), 0, "nothing stays behind");
    archive
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().expect("a tar");
    entries.map(|entry| entry.expect("an entry").path().expect("a path").to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn what_is_written_reads_back() {
    let (base, top, empty) = (layer(&"base".repeat(200_000)), layer("top"), vec![0; 1024]);
    let layers = [
        saved(&base, gzip(&base), media_type::DOCKER_LAYER_GZIP),
        saved(&top, zstd(&top), media_type::OCI_LAYER_ZSTD),
        saved(&empty, empty.clone(), media_type::OCI_LAYER),
    ];
    for (encoding, media_types) in [
        (Encoding::Stored, [media_type::OCI_LAYER_GZIP, media_type::OCI_LAYER_ZSTD, media_type::OCI_LAYER]),
        (Encoding::WithoutZstd, [media_type::OCI_LAYER_GZIP, media_type::OCI_LAYER, media_type::OCI_LAYER]),
    ] {
        let images = vec![
            image(&["app:1", "r.example/app:2"], &[&base, &top, &empty], &[&layers[0], &layers[1], &layers[2]]),
            image(&["other"], &[&base, &base], &[&layers[0], &layers[0]]),
            image(&[], &[], &[]),
        ];
        let archive = written(images, encoding).await.expect("written");
        assert_eq!(archive.len() % 512, 0);
        let names = names(&archive);
        // Each layer once, and three image configs and manifests.
        assert_eq!(names.iter().filter(|name| name.starts_with("blobs/sha256/") && name.len() > 20).count(), 3 + 3 + 3);
        let images = read_all(&archive).await;
        let tags = |image: &ArchivedImage| seen(image).0;
        assert_eq!(tags(&images[0]), ["docker.io/library/app:1", "r.example/app:2"]);
        assert_eq!(tags(&images[1]), ["docker.io/library/other:latest"]);
        assert_eq!(tags(&images[2]), [""; 0]);
        assert_eq!(images[0].diff_ids, ids(&[&base, &top, &empty]));
        assert_eq!(images[0].layers.iter().map(|layer| &*layer.media_type).collect::<Vec<_>>(), media_types);
        let manifest = images[0].manifest.as_ref().expect("a manifest").manifest().expect("readable");
        assert_eq!(manifest.layers, images[0].layers, "the manifest has what is in the archive");
    }
}

#[tokio::test]
async fn what_the_daemon_has_is_left_out() {
    let (base, top) = (layer("base"), layer("top"));
    let mut known = saved(&base, gzip(&base), media_type::DOCKER_LAYER_GZIP);
    let new = saved(&top, gzip(&top), media_type::OCI_LAYER_GZIP);
    let given = known.clone();
    known.blob = None;
    let archive = written(vec![image(&["app"], &[&base, &top], &[&known, &new])], Encoding::Stored).await.expect("written");
    let names = names(&archive);
    assert!(!names.contains(&blob(&gzip(&base))) && names.contains(&blob(&gzip(&top))));
    let error = refused(&archive).await;
    assert!(error.contains("layer 1 of 2") && error.contains("is not in the archive"), "{error}");
    // It is written because another image has it as a source.
    let images = vec![image(&["app"], &[&base, &top], &[&known, &new]), image(&["base"], &[&base], &[&given])];
    assert_eq!(read_all(&written(images, Encoding::Stored).await.expect("written")).await.len(), 2);
}

#[tokio::test]
async fn an_images_own_manifest_stays_where_it_fits() {
    let base = layer("base");
    for (stored, encoding, stays) in [
        (gzip(&base), Encoding::Stored, true),
        (gzip(&base), Encoding::WithoutZstd, true),
        (zstd(&base), Encoding::WithoutZstd, false),
    ] {
        let mut app = image(&["app"], &[&base], &[&saved(&base, stored.clone(), media_type::OCI_LAYER_GZIP)]);
        let own = manifest(&app.config, &[&stored]);
        app.manifest = Some(own.clone());
        let images = read_all(&written(vec![app], encoding).await.expect("written")).await;
        assert_eq!(images[0].manifest.as_ref() == Some(&own), stays, "{encoding:?}");
    }
}

#[tokio::test]
async fn what_is_not_right_breaks_off() {
    let (base, top) = (layer("base"), layer("top"));
    let broken = |blob: Vec<u8>, encoding| {
        let mut layer = saved(&base, gzip(&base), media_type::OCI_LAYER_GZIP);
        layer.blob = Some(Arc::new(BytesSource::new(blob.into())));
        let app = image(&["app"], &[&base], &[&layer]);
        async move { written(vec![app], encoding).await.expect_err("broken off").to_string() }
    };
    let longer = [gzip(&base), gzip(b"")].concat();
    for (blob, encoding, words) in [
        (gzip(&top), Encoding::Stored, "is damaged"),
        (gzip(&base)[..50].to_vec(), Encoding::Stored, "is damaged"),
        (longer, Encoding::Stored, "is damaged"),
        (zstd(&top), Encoding::WithoutZstd, "has the diff ID"),
        (zstd(&base)[..50].to_vec(), Encoding::WithoutZstd, "failed to decompress"),
        (b"text".to_vec(), Encoding::Stored, "is not a layer"),
    ] {
        let error = broken(blob, encoding).await;
        assert!(error.contains(words), "{words}: {error}");
    }
    let app = image(&["app"], &[&base, &top], &[&saved(&base, gzip(&base), "")]);
    let Err(error) = write(vec![app], Encoding::Stored, std::path::Path::new(".")) else { panic!("it does not fit") };
    assert!(error.to_string().contains("failed to archive the image docker.io/library/app"), "{error}");
}
