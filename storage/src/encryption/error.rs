//! Why a sealed secret does not open.

use std::io;
use std::sync::Arc;

use outlive_core::store::StoreError;
use thiserror::Error;

use super::sealed_secret::{MAX_SECRET_BYTES, VERSION};

/// Why a secret could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UnlockError {
    /// It was sealed with another passphrase or key.
    #[error("the passphrase or key is not the right one; try another")]
    WrongKey,
    /// The bytes are not what was written.
    #[error("the sealed secret is damaged ({0}); restore it from a backup")]
    Damaged(&'static str),
    /// A newer version of this software wrote it.
    #[error(
        "the sealed secret has format {0}, this version understands up to {VERSION}; use the newer version again"
    )]
    FutureVersion(u8),
    /// The cost is not one that argon2 can be run at here.
    #[error("argon2 can't be run at this cost; take `Cost::DEFAULT`")]
    Cost,
    /// The secret to seal is too long.
    #[error("a secret of more than {MAX_SECRET_BYTES} bytes is not sealed")]
    TooLong,
    /// There is not as much memory as the key derivation is to use.
    #[error("there is not enough memory to derive the key; close other programs and try again")]
    Memory,
    /// The system gave no randomness.
    #[error("the operating system gave no random numbers")]
    Entropy,
}

impl From<UnlockError> for StoreError {
    fn from(error: UnlockError) -> Self {
        match error {
            UnlockError::WrongKey => Self::WrongKey,
            UnlockError::Damaged(what) => Self::Damaged {
                what: format!("the header of the encryption: {what}"),
            },
            UnlockError::FutureVersion(found) => Self::FutureVersion {
                found: u32::from(found),
                known: u32::from(VERSION),
            },
            UnlockError::Cost
            | UnlockError::TooLong
            | UnlockError::Memory
            | UnlockError::Entropy => Self::Io(Arc::new(io::Error::other(error))),
        }
    }
}
