//! From sled's errors and panics to [`StoreError`]. Called around every call into sled.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use outlive_core::store::StoreError;

/// How sled begins the only error it has for a locked file.
const LOCKED: &str = "could not acquire lock";

/// Runs a call into sled. sled panics on some damaged files where it should return an error; a panic
/// becomes [`StoreError::Damaged`].
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(from_sled),
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("sled panicked");
            Err(damaged(what.lines().next().unwrap_or_default()))
        }
    }
}

pub(super) fn damaged(what: impl Into<String>) -> StoreError {
    StoreError::Damaged { what: what.into() }
}

pub(super) fn from_io(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
        // A read that ends early: the file is shorter than its own records say.
        io::ErrorKind::UnexpectedEof => damaged("a file ends too early"),
        _ => StoreError::Io(Arc::new(error)),
    }
}

/// Which store it was that could not be opened, where the system does not say.
pub(super) fn in_dir(dir: &Path, error: StoreError) -> StoreError {
    let dir = dir.display();
    match error {
        StoreError::Io(error) => {
            let told = io::Error::new(error.kind(), format!("{dir}: {error}"));
            StoreError::Io(Arc::new(told))
        }
        StoreError::Damaged { what } => damaged(format!("{what}, in {dir}")),
        other => other,
    }
}

fn from_sled(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) => from_io(error),
        sled::Error::Corruption { at: Some(at), .. } => damaged(format!("bad checksum at {at:?}")),
        sled::Error::Corruption { at: None, .. } => damaged("bad checksum or layout"),
        sled::Error::Unsupported(what) => damaged(what),
        sled::Error::CollectionNotFound(_) => damaged("the tree is missing"),
        sled::Error::ReportableBug(what) => StoreError::Io(Arc::new(io::Error::other(what))),
    }
}

/// Whether sled could not lock its log.
pub(super) fn is_locked(error: &StoreError) -> bool {
    matches!(error, StoreError::Io(error) if error.to_string().starts_with(LOCKED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(from_sled(sled::Error::Io(full)), StoreError::Full));
        let quota = io::Error::from(io::ErrorKind::QuotaExceeded);
        assert!(matches!(from_io(quota), StoreError::Full));
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(matches!(from_io(denied), StoreError::Io(_)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_error_number_of_a_full_disk_is_known() {
        const ENOSPC: i32 = 28;
        assert!(matches!(
            from_io(io::Error::from_raw_os_error(ENOSPC)),
            StoreError::Full
        ));
    }

    #[test]
    fn damage_that_sled_names_is_damage() {
        let error = sled::Error::Corruption { at: None, bt: () };
        assert!(matches!(from_sled(error), StoreError::Damaged { .. }));
        let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert!(matches!(from_io(cut), StoreError::Damaged { .. }));
    }

    #[test]
    fn a_panic_in_sled_is_damage_with_its_first_line() {
        let error = guarded::<()>(|| panic!("page 7 is gone\nand more")).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { what } if what == "page 7 is gone"));
    }
}
