//! What a directory takes of the disk.

use std::fs;
use std::path::Path;

pub(crate) fn disk_use(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.metadata().unwrap() {
            meta if meta.is_dir() => disk_use(&entry.path()),
            meta => meta.len(),
        })
        .sum()
}
