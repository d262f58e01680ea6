//! A file system of a few MiB, to be filled.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::PATIENCE;

/// One at a time: the stores of a process share sled's threads, and one whose disk is full may hold up
/// another.
static ONE: Mutex<()> = Mutex::new(());

/// A small file system, gone when this is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    at: TempDir,
    _one: MutexGuard<'static, ()>,
}

impl SmallDisk {
    /// Mounts one of so many MiB. Where that is not permitted the test is to be skipped, which is said.
    ///
    /// # Panics
    ///
    /// With `OUTLIVE_LAB=required` where it is not permitted.
    #[must_use]
    pub fn mount(mib: u64) -> Option<Self> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let at = tempfile::tempdir().expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(at.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { at, _one: one }),
            failed => {
                let why = format!("a small disk takes root, to mount a tmpfs: {failed:?}");
                let required = std::env::var_os("OUTLIVE_LAB").is_some_and(|is| is == "required");
                assert!(!required, "{why}");
                println!("SKIPPED: {why}");
                None
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.at.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Who has closed a store may hold its files for a moment still.
        let end = Instant::now() + PATIENCE;
        let is_unmounted = || {
            let unmounted = Command::new("umount").arg(self.path()).output();
            unmounted.is_ok_and(|unmounted| unmounted.status.success())
        };
        let mut done = is_unmounted();
        while !done && !std::thread::panicking() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            done = is_unmounted();
        }
        // A test that fails has something better to say.
        assert!(done || std::thread::panicking(), "it is still mounted");
    }
}
