//! The file of a log, as the device has it. The writer holds it over failures, from before sled
//! opens the log until another log takes its place.
//!
//! What could not be given to the device may look as if it had been: Linux keeps it in memory, takes
//! it for written, and tells of the failure once, those alone who had the file open. Neither a read
//! nor a later sync shows that it is missing. So this handle is not opened again after a failure,
//! and hears of those too of which only sled was told. Once there was one the log is in **doubt**:
//! before sled reads it again, a copy takes its place. A file beside it keeps that in mind, should the
//! process end before.
//!
//! sled uses the room of a segment again once what lived in it was written elsewhere, and takes for
//! written what a `sync_file_range` was done for, on Linux. That is no promise of the device's: it may
//! keep what came into that room and not what moved out of it, and then what was committed and synced
//! long ago is gone. So the file is **written through**: the system gives every write to the device
//! before it says that it is done.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use outlive_core::store::StoreError;

use super::errors::from_io;
use super::files::sync_dir;
use super::header::Header;
use super::options::SledOptions;

/// sled's file in the directory of a log.
const FILE_NAME: &str = "db";

/// Lies beside it while the log is in doubt.
const DOUBT: &str = "doubted";

/// Bytes that are copied at once: 1 MiB. A log may be larger than the memory.
const PART_BYTES: u64 = 1 << 20;

/// How long sled's own lock may outlive the handle that held it: its I/O threads let go of the file
/// a little after the last handle is gone. Ours is held by then, so nobody else can be meant.
const LOCK_LINGERS: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) struct LogFile {
    dir: PathBuf,
    file: File,
    written_through: bool,
    doubted: AtomicBool,
    #[cfg(test)]
    faults: faults::Faults,
}

impl LogFile {
    /// Opens the file of the log in `dir`, and makes both if they are not there.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(from_io)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(FILE_NAME))
            .map_err(from_io)?;
        let through = write_through(&file);
        if let Err(error) = &through {
            tracing::warn!(%error, "the log can't be written through, so it is synced more often instead");
        }
        Ok(Self {
            doubted: AtomicBool::new(dir.join(DOUBT).exists()),
            dir: dir.to_path_buf(),
            file,
            written_through: through.is_ok(),
            #[cfg(test)]
            faults: faults::Faults::default(),
        })
    }

    /// The directory of the log.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its bytes.
    pub(super) fn len(&self) -> Result<u64, StoreError> {
        Ok(self.file.metadata().map_err(from_io)?.len())
    }

    /// Whether what sled has written is on the device.
    pub(super) const fn is_written_through(&self) -> bool {
        self.written_through
    }

    /// Gives to the device what the operating system has. The log is in doubt if this fails.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let synced = self.file.sync_data();
        #[cfg(test)]
        let synced = synced.and_then(|()| self.faults.sync());
        synced.map_err(from_io).inspect_err(|_| self.doubt())
    }

    /// From now on what is read of the log says nothing about the device.
    pub(super) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
        // It has to outlive this process, not the system, which then reads from the device.
        if let Err(error) = File::create(self.dir.join(DOUBT)) {
            tracing::warn!(%error, "a failed sync can't be noted for the next process");
        }
    }

    /// Whether there is something of the log that the device may not have.
    pub(super) fn is_doubted(&self) -> bool {
        // Fails if anything did since the last one, also if only sled was told of it.
        let synced = self.sync();
        synced.is_err() || self.doubted.load(Ordering::Relaxed)
    }

    /// Copies the log to the next one, which takes its place. Called while sled does not have it.
    pub(super) fn renew(
        &self,
        header: &mut Header,
        options: &SledOptions,
    ) -> Result<Self, StoreError> {
        when_free(&options.dir, || match self.file.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(error)) => Some(Err(from_io(error))),
            Ok(()) => Some(Ok(())),
        })??;
        let dir = header.next_log();
        let copied = self
            .copy_to(&dir)
            .map_err(from_io)
            .and_then(|()| sync_dir(&dir))
            .and_then(|()| sync_dir(&options.dir))
            // The room is needed.
            .inspect_err(|_| drop(fs::remove_dir_all(&dir)));
        let unlocked = self.file.unlock().map_err(from_io);
        copied.and(unlocked)?;
        let renewed = Self::open(&dir)?;
        // If this fails, which of the two is the log is not known, and both stay.
        header.switch()?;
        // Its room is needed, and the copy is all that it was.
        header.remove_others();
        tracing::warn!("the log was copied, after a sync that failed");
        Ok(renewed)
    }

    /// sled's directory for large values is empty: ours are never as large.
    fn copy_to(&self, dir: &Path) -> io::Result<()> {
        if dir.exists() {
            // Of an attempt that failed.
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir(dir)?;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() && entry.file_name() != DOUBT {
                self.copy_file(&entry.path(), &dir.join(entry.file_name()))?;
            }
        }
        Ok(())
    }

    /// Not by `fs::copy`, which may let the file system share what the device has.
    fn copy_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut from, mut to) = (File::open(from)?, File::create_new(to)?);
        let mut part = Vec::new();
        while (&mut from).take(PART_BYTES).read_to_end(&mut part)? > 0 {
            to.write_all(&part)?;
            part.clear();
        }
        to.sync_all()?;
        #[cfg(test)]
        self.faults.sync()?;
        Ok(())
    }
}

/// Has the system give what is written to a file to the device, whoever writes it, as if it had been
/// opened with `O_DSYNC` (`FS_SYNC_FL` in `ioctl_iflags(2)`). It stays so until the file is removed.
#[cfg(target_os = "linux")]
fn write_through(file: &File) -> io::Result<()> {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let flags = ioctl_getflags(file)?;
    if !flags.contains(IFlags::SYNC) {
        ioctl_setflags(file, flags | IFlags::SYNC)?;
    }
    Ok(())
}

/// Elsewhere sled syncs after each write by itself.
#[cfg(not(target_os = "linux"))]
fn write_through(_file: &File) -> io::Result<()> {
    Ok(())
}

/// Tries what takes the lock of sled's file until that is free; `store` is what to name if it never
/// is.
pub(super) fn when_free<T>(
    store: &Path,
    mut attempt: impl FnMut() -> Option<T>,
) -> Result<T, StoreError> {
    let give_up = Instant::now().checked_add(LOCK_LINGERS);
    loop {
        if let Some(result) = attempt() {
            return Ok(result);
        }
        if give_up.is_none_or(|at| Instant::now() >= at) {
            return Err(StoreError::InUse {
                path: store.display().to_string(),
            });
        }
        std::thread::sleep(LOCK_RETRY);
    }
}

/// Faults of a device, for tests.
#[cfg(test)]
mod faults {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    pub(super) struct Faults {
        /// Syncs that fail from now on.
        pub(super) syncs: AtomicU64,
    }

    impl Faults {
        pub(super) fn sync(&self) -> io::Result<()> {
            let fails = |left: u64| left.checked_sub(1);
            match self
                .syncs
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fails)
            {
                Ok(_) => Err(io::Error::other("the device failed")),
                Err(_) => Ok(()),
            }
        }
    }

    impl LogFile {
        /// Lets so many syncs fail from now on.
        pub(in super::super) fn fail_syncs(&self, count: u64) {
            self.faults.syncs.store(count, Ordering::Relaxed);
        }
    }
}
