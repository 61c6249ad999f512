//! A skeleton: a layer of only the paths that file operations can touch. The daemon's own copier works on it as on the whole base
//! image.

use std::collections::BTreeMap;
use std::io;

use super::entry::{Kind, PathEntry};
use crate::domain::path_of;

/// The mode and the time of a placeholder file. No copied file has these: the containerd store's differ considers files of the same
/// size, time and mode unchanged.
const STAND_IN: (u32, u64) = (0o1000, 1);

/// Returns the layer's tar. The same paths give the same bytes.
///
/// # Errors
/// If a path does not fit into a tar.
pub fn skeleton(paths: &BTreeMap<String, PathEntry>) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    // The parents of a path sort before it.
    for (path, met) in paths {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        match &met.kind {
            Kind::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(met.mode);
                header.set_uid(met.owner.0.into());
                header.set_gid(met.owner.1.into());
                header.set_mtime(met.modified);
                tar.append_data(&mut header, path_of(&format!("{path}/")), io::empty())?;
            }
            Kind::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                header.set_mtime(STAND_IN.1);
                tar.append_link(&mut header, path_of(path), path_of(target))?;
            }
            Kind::File | Kind::Other => {
                let text = met.text.as_deref().unwrap_or_default();
                header.set_entry_type(tar::EntryType::Regular);
                header.set_mode(STAND_IN.0);
                header.set_mtime(STAND_IN.1);
                header.set_size(text.len() as u64);
                tar.append_data(&mut header, path_of(path), text.as_bytes())?;
            }
        }
    }
    tar.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::LayerIndex;

    #[test]
    fn it_has_the_paths_with_their_headers() {
        let mut layer = LayerIndex::default();
        layer.insert("a", PathEntry::directory(0o2750, (3, 4), 5));
        layer.insert("a/link", PathEntry::plain(Kind::Link("/b".to_owned())));
        layer.insert("etc", PathEntry::directory(0o755, (0, 0), 6));
        layer.insert("etc/group", PathEntry { text: Some("app:x:8:\n".to_owned()), ..PathEntry::plain(Kind::File) });
        layer.insert(&format!("etc/{}", "long".repeat(60)), PathEntry::plain(Kind::File));
        let tar = skeleton(&layer.entries).unwrap();
        assert_eq!(LayerIndex::from_tar(&tar[..]).unwrap(), layer);
        assert_eq!(skeleton(&layer.entries).unwrap(), tar);
    }
}
