//! The keys of the records of an image as a whole, by the image's name and tag in the cache.

use crate::disk::DiskRecord;
use crate::mounts::record::MountsRecord;
use crate::plan::{Inputs, RecordKey};

/// Returns the key of the inputs of an image's last build.
#[must_use]
pub fn inputs_key(image: &str, tag: &str) -> RecordKey<Inputs> {
    RecordKey::from_text(&format!("hakobi inputs 1\n{image}\n{tag}"))
}

/// Returns the key of the cache mounts of an image's last build.
#[must_use]
pub fn mounts_key(image: &str, tag: &str) -> RecordKey<MountsRecord> {
    RecordKey::from_text(&format!("hakobi mounts 1\n{}", inputs_key(image, tag)))
}

/// Returns the key of the disk of a daemon that built an image, on machines of this kind.
#[must_use]
pub fn disk_key(image: &str, tag: &str) -> RecordKey<DiskRecord> {
    RecordKey::from_text(&format!("hakobi disk 1\n{}\n{}", inputs_key(image, tag), std::env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other keys would make the mounts of all users cold once.
    #[test]
    fn keys_are_what_they_were() {
        let inputs = "hakobi inputs 1\nuser/app\nlatest";
        assert_eq!(inputs_key("user/app", "latest"), RecordKey::from_text(inputs));
        let mounts = format!("hakobi mounts 1\n{}", crate::domain::Digest::hash(inputs.as_bytes()));
        assert_eq!(mounts_key("user/app", "latest"), RecordKey::from_text(&mounts));
    }
}
