//! sled's snapshots of its log: what one is that sled has not finished. Settled before sled opens the log.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// How the name of a snapshot ends that sled has not given its own.
const GENERATING: &str = "generating";

/// How that of a copy of one ends, which sled takes for none.
const COPYING: &str = "in___motion";

/// Settles what became of a snapshot that sled was writing when the process was killed, the disk was full or
/// the power went.
///
/// One that is whole gets its name. sled gives it that without syncing the directory, and then overwrites
/// segments that only an older snapshot needs: after a power cut they may be gone, and the name too. What
/// is less than whole is removed: sled would take it for the newest one, and the log for damaged.
pub(super) fn settle_snapshots(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let ending = path.extension().unwrap_or_default();
        if ending == COPYING {
            fs::remove_file(&path)?;
        } else if ending == GENERATING {
            let snapshot = fs::read(&path)?;
            if is_whole(&snapshot) {
                name_snapshot(&path, &snapshot)?;
            }
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Gives a snapshot its name. A copy of it: what can be read of a file whose sync failed, or never came, may
/// not be on the device (ADR 24).
fn name_snapshot(path: &Path, snapshot: &[u8]) -> io::Result<()> {
    let copy = path.with_extension(COPYING);
    let mut file = File::create(&copy)?;
    file.write_all(snapshot)?;
    file.sync_all()?;
    fs::rename(copy, path.with_extension(""))?;
    match path.parent() {
        Some(dir) if cfg!(unix) => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

/// Whether a snapshot of sled's ends as it does: with the checksum of its content, behind the content's
/// length.
fn is_whole(snapshot: &[u8]) -> bool {
    let Some((content, checksum)) = snapshot.split_last_chunk::<4>() else {
        return false;
    };
    let Some((content, _length)) = content.split_last_chunk::<8>() else {
        return false;
    };
    !content.is_empty() && crc32fast::hash(content) == u32::from_le_bytes(*checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_snapshot_is_named_and_a_part_of_one_removed() {
        let dir = tempfile::tempdir().unwrap();
        let content = b"what sled would write";
        let mut whole = content.to_vec();
        whole.extend(21_u64.to_le_bytes());
        whole.extend(crc32fast::hash(content).to_le_bytes());
        let at = |name: &str| dir.path().join(name);
        for (number, len) in [("1", whole.len()), ("2", whole.len() - 1), ("3", 0)] {
            fs::write(at(&format!("snap.{number}.generating")), &whole[..len]).unwrap();
        }
        fs::write(at("snap.4.generating"), [0; 12]).unwrap();
        fs::write(at("snap.5.in___motion"), &whole).unwrap();
        settle_snapshots(dir.path()).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(fs::read(at("snap.1")).unwrap(), whole);
    }
}
