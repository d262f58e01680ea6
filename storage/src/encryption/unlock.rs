//! What opens what is encrypted at rest: a passphrase that a person knows, or a key that the app
//! keeps, in the keychain of the system for example.

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::{Zeroize, Zeroizing};

use super::error::UnlockError;
use super::sealed_secret::SALT_BYTES;

/// A passphrase or a key. Wiped from memory when dropped, and never shown by `Debug`.
#[derive(Clone)]
pub struct Unlock(Kind);

#[derive(Clone)]
enum Kind {
    Passphrase(Zeroizing<Vec<u8>>),
    Key(Zeroizing<[u8; 32]>),
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Passphrase(_) => "Unlock(passphrase)",
            Kind::Key(_) => "Unlock(key)",
        })
    }
}

impl Unlock {
    /// A passphrase, from which the key is derived. Its bytes are taken as they are: what a person
    /// may type in two ways, the app brings into one form before.
    #[must_use]
    pub fn passphrase(passphrase: impl Into<Vec<u8>>) -> Self {
        Self(Kind::Passphrase(Zeroizing::new(passphrase.into())))
    }

    /// A key of 32 random bytes, used without a slow derivation.
    #[must_use]
    pub fn key(key: [u8; 32]) -> Self {
        Self(Kind::Key(Zeroizing::new(key)))
    }

    /// How a secret that this one seals is to be opened again.
    pub(super) const fn method(&self, cost: Cost) -> Method {
        match self.0 {
            Kind::Passphrase(_) => Method::Passphrase(cost),
            Kind::Key(_) => Method::Key,
        }
    }

    /// The root of the keys for one sealed secret.
    pub(super) fn root(
        &self,
        method: Method,
        salt: &[u8; SALT_BYTES],
    ) -> Result<Zeroizing<[u8; 32]>, UnlockError> {
        match (&self.0, method) {
            (Kind::Passphrase(passphrase), Method::Passphrase(cost)) => {
                cost.derive(passphrase, salt)
            }
            (Kind::Key(key), Method::Key) => Ok(key.clone()),
            (Kind::Passphrase(_), Method::Key) | (Kind::Key(_), Method::Passphrase(_)) => {
                Err(UnlockError::WrongKey)
            }
        }
    }
}

/// How the root of the keys is come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Key,
    Passphrase(Cost),
}

impl Method {
    /// The cost as it is written down: none of a key.
    pub(super) const fn cost(self) -> Cost {
        match self {
            Self::Key => Cost {
                memory_kib: 0,
                passes: 0,
                lanes: 0,
            },
            Self::Passphrase(cost) => cost,
        }
    }
}

/// What each guess of a passphrase costs, its owner's too: the parameters of argon2id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes it is divided into, which an attacker can fill side by side. Here they are filled one
    /// after the other.
    pub lanes: u32,
}

/// The most memory a stored header may ask for, in KiB: 1 GiB. Whoever can write to the disk must
/// not be able to exhaust the memory.
const MOST_MEMORY_KIB: u32 = 1 << 20;

/// The most passes and lanes a stored header may ask for, for the same reason.
const MOST_PASSES: u32 = 64;
const MOST_LANES: u32 = 16;

impl Cost {
    /// The second choice of [RFC 9106], for where 2 GiB are too much to ask: 64 MiB, 3 passes, 4
    /// lanes. It lies well above the least that [OWASP] asks for (19 MiB, 2 passes, 1 lane), and
    /// takes a fraction of a second on a phone.
    ///
    /// [RFC 9106]: https://www.rfc-editor.org/rfc/rfc9106#section-4
    /// [OWASP]: https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
    pub const DEFAULT: Self = Self {
        memory_kib: 64 * 1024,
        passes: 3,
        lanes: 4,
    };

    pub(super) const fn within_bounds(self) -> bool {
        self.memory_kib <= MOST_MEMORY_KIB && self.passes <= MOST_PASSES && self.lanes <= MOST_LANES
    }

    fn derive(
        self,
        passphrase: &[u8],
        salt: &[u8; SALT_BYTES],
    ) -> Result<Zeroizing<[u8; 32]>, UnlockError> {
        if !self.within_bounds() {
            return Err(UnlockError::Cost);
        }
        let mut root = Zeroizing::new([0; 32]);
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(root.len()))
            .map_err(|_| UnlockError::Cost)?;
        let mut blocks = Vec::new();
        blocks
            .try_reserve_exact(params.block_count())
            .map_err(|_| UnlockError::Memory)?;
        blocks.resize(params.block_count(), Block::new());
        let derived = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(passphrase, salt, &mut root[..], &mut blocks);
        blocks.iter_mut().for_each(Zeroize::zeroize);
        derived.map_err(|_| UnlockError::Cost)?;
        Ok(root)
    }
}
