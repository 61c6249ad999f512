//! Ends the filling of a mount: completes all files, moves them into the mount, and sets the times of directories last.

use super::attributes::{set_xattrs, timestamps};
use super::clock;
use super::fill::{Fill, Filling};
use super::items::{ItemKind, failed};

/// Makes the files visible in the mount. Returns the kernel's time of the last change, in nanoseconds since 1970.
///
/// # Errors
/// Returns the first error of the filling, with which the mount is empty.
pub fn finish(fill: Fill) -> Result<i64, String> {
    let mut filling = fill.into_filling()?;
    if filling.items.is_empty() {
        return Err(failed("fill", "", "it has no entries"));
    }
    complete_files(&mut filling)?;
    let upper = (1..filling.tree.len()).filter(|number| filling.tree.parent_of(*number) == 0);
    let names: Vec<Vec<u8>> = upper.map(|number| filling.tree.name(number).into_owned()).collect();
    filling.staging.move_all(&names).map_err(|error| failed("fill", "", error))?;
    filling.tree.move_to(filling.mount.try_clone().map_err(|error| failed("open", "", error))?);
    // Children come after their parents, and a parent that is not writable cannot be entered.
    for number in (1..filling.tree.len()).rev() {
        if let Some(ItemKind::Directory) = kind(&filling, number) {
            filling.complete_directory(number)?;
        }
    }
    let Filling { mount, staging, items, .. } = filling;
    staging.commit().map_err(|error| failed("fill", "", error))?;
    // Owner and mode of the root are BuildKit's. From here on, no error can make the mount empty again, and none matters to its files.
    if let Some(root) = items.first() {
        let _ = set_xattrs(&mount, &root.xattrs);
        let _ = rustix::fs::futimens(&mount, &timestamps(root.attributes.modified));
    }
    clock::after(&mount).map_err(|error| failed("read the time of", "", error))
}

/// Completes the files with holes and the empty ones, and creates hard links.
fn complete_files(filling: &mut Filling) -> Result<(), String> {
    for number in 1..filling.tree.len() {
        if let Some(&ItemKind::File { size, is_created, .. }) = kind(filling, number) {
            filling.complete_file(number, size, is_created)?;
        }
    }
    for number in 1..filling.tree.len() {
        if let Some(ItemKind::HardLink(of)) = kind(filling, number) {
            let of = of.clone();
            filling.link(number, &of)?;
        }
    }
    Ok(())
}

fn kind(filling: &Filling, number: u32) -> Option<&ItemKind> {
    filling.items.get(super::tree::index(number)).map(|item| &item.kind)
}
