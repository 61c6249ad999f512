//! Tars of layers, and the indexes of their paths.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};

use hakobi::domain::Digest;
use hakobi::layers::{LayerIndex, PathIndex, archive_paths, skeleton};
use hakobi::transfer::LayerEntries;

/// Reads the input as a layer, and as a file that `ADD` may unpack; and again with valid checksums.
pub fn layer(input: &[u8]) {
    super::also_mended(input, read_layer);
}

fn read_layer(input: &[u8]) {
    let mut entries = LayerEntries::new(input);
    while let Ok(Some(entry)) = entries.next_entry() {
        let mut bytes = Vec::new();
        if entries.read_to_end(&mut bytes).is_ok() {
            assert_eq!(bytes.len() as u64, entry.size);
        }
    }
    if let Ok(index) = LayerIndex::from_tar(input) {
        let paths = index.entries.keys().chain(&index.removed).chain(&index.opaque);
        paths.for_each(|path| assert_inside(path));
        let json = serde_json::to_vec(&index).unwrap();
        assert_eq!(serde_json::from_slice::<LayerIndex>(&json).unwrap(), index, "it changes when it is written");
        use_index(&index);
    }
    thread_local! {
        static FILE: RefCell<tempfile::NamedTempFile> = RefCell::new(tempfile::NamedTempFile::new().unwrap());
    }
    FILE.with_borrow_mut(|file| {
        let path = file.path().to_owned();
        file.as_file().set_len(0).unwrap();
        std::io::Seek::rewind(file).unwrap();
        file.write_all(input).unwrap();
        for found in archive_paths(&path, "it", &Digest::hash(input)).unwrap_or_default() {
            assert_inside(&found.path);
            found.same.iter().for_each(|same| assert_inside(same));
        }
        assert!(archive_paths(&path, "it", &Digest::hash(b"another")).is_err() || input == b"another");
    });
}

/// Reads the input as the stored index of a layer.
pub fn index(input: &[u8]) {
    let Ok(index) = serde_json::from_slice::<LayerIndex>(input) else { return };
    let json = serde_json::to_vec(&index).unwrap();
    assert_eq!(serde_json::from_slice::<LayerIndex>(&json).unwrap(), index, "it changes when it is written");
    use_index(&index);
}

/// Asserts that a path leads nowhere else than into its layer.
fn assert_inside(path: &str) {
    assert!(path.is_empty() || path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{path:?}");
}

/// Does with an index what a build does.
fn use_index(layer: &LayerIndex) {
    let index = PathIndex::from_layers([layer, layer]);
    // Paths of many directories take a time of their square.
    for path in layer.entries.keys().step_by(1 + layer.entries.len() / 20) {
        let _ = (index.get(path), index.below(path).count());
        if let Some((end, links)) = index.walk(&format!("{path}/x")) {
            assert!(!end.split('/').any(|part| part == ".."), "{end:?}");
            assert!(links.len() <= 255);
        }
    }
    if let Ok(tar) = skeleton(&layer.entries) {
        // A stored index may name paths that no layer has.
        let _ = LayerIndex::from_tar(&tar[..]);
    }
}
