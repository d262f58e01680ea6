//! A short secret, sealed with a passphrase or a key, as it lies on the disk.
//!
//! ```text
//!   0  version                          14  salt (16)
//!   1  method: 0 key, 1 argon2id        30  check (32)
//!   2  memory in KiB (u32)              62  nonce (24)
//!   6  passes (u32)                     86  the secret, sealed (its length + 16)
//!  10  lanes (u32)                     end  digest over all before it (16)
//! ```
//!
//! The digest needs no key: it tells damage from a wrong passphrase, which the check tells. Only
//! then is the seal opened, with everything before the nonce and the purpose as associated data.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use zeroize::Zeroizing;

use super::error::UnlockError;
use super::unlock::{Cost, Method, Unlock};

/// The newest version of the layout.
pub(super) const VERSION: u8 = 1;

/// Bytes of a secret, at most: these are keys and seeds.
pub const MAX_SECRET_BYTES: usize = 256;

pub(super) const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const DIGEST_BYTES: usize = 16;

const WRAPPING_KEY: &str = "outlive at rest 1: wrapping key";
const CHECK: &str = "outlive at rest 1: check";

/// A secret that opens with a passphrase or a key: the data key of a store, or the seed of an
/// identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSecret {
    method: Method,
    salt: [u8; SALT_BYTES],
    check: [u8; 32],
    nonce: [u8; NONCE_BYTES],
    sealed: Vec<u8>,
}

struct Keys {
    wrapping: Zeroizing<[u8; 32]>,
    check: [u8; 32],
}

impl Keys {
    fn new(root: &[u8; 32], salt: &[u8; SALT_BYTES]) -> Self {
        let derive = |context| {
            *blake3::Hasher::new_derive_key(context)
                .update(root)
                .update(salt)
                .finalize()
                .as_bytes()
        };
        Self {
            wrapping: Zeroizing::new(derive(WRAPPING_KEY)),
            check: derive(CHECK),
        }
    }
}

impl SealedSecret {
    /// Seals `secret`, of at most [`MAX_SECRET_BYTES`]. It opens for the same purpose only.
    ///
    /// # Errors
    /// [`UnlockError`] if the cost or the secret is out of bounds, or the system has no memory or
    /// no randomness.
    pub fn seal(
        purpose: &str,
        secret: &[u8],
        unlock: &Unlock,
        cost: Cost,
    ) -> Result<Self, UnlockError> {
        if secret.len() > MAX_SECRET_BYTES {
            return Err(UnlockError::TooLong);
        }
        let mut new = Self {
            method: unlock.method(cost),
            salt: random()?,
            check: [0; 32],
            nonce: random()?,
            sealed: secret.to_vec(),
        };
        let root = unlock.root(new.method, &new.salt)?;
        let keys = Keys::new(&root, &new.salt);
        new.check = keys.check;
        let associated = new.associated(purpose);
        let tag = XChaCha20Poly1305::new((&*keys.wrapping).into())
            .encrypt_inout_detached(
                (&new.nonce).into(),
                &associated,
                (&mut new.sealed[..]).into(),
            )
            .map_err(|_| UnlockError::TooLong)?;
        new.sealed.extend_from_slice(&tag);
        Ok(new)
    }

    /// The secret.
    ///
    /// # Errors
    /// [`UnlockError::WrongKey`] if it was sealed with something else; [`UnlockError::Damaged`] if
    /// it was sealed for another purpose, or was changed by somebody who knows this layout.
    pub fn open(&self, purpose: &str, unlock: &Unlock) -> Result<Zeroizing<Vec<u8>>, UnlockError> {
        let root = unlock.root(self.method, &self.salt)?;
        let keys = Keys::new(&root, &self.salt);
        if blake3::Hash::from_bytes(keys.check) != blake3::Hash::from_bytes(self.check) {
            return Err(UnlockError::WrongKey);
        }
        let does_not_open = UnlockError::Damaged("it does not open");
        let at = self.sealed.len().saturating_sub(TAG_BYTES);
        let (sealed, tag) = self.sealed.split_at(at);
        let tag = <[u8; TAG_BYTES]>::try_from(tag).map_err(|_| does_not_open)?;
        let mut secret = Zeroizing::new(sealed.to_vec());
        XChaCha20Poly1305::new((&*keys.wrapping).into())
            .decrypt_inout_detached(
                (&self.nonce).into(),
                &self.associated(purpose),
                (&mut secret[..]).into(),
                (&tag).into(),
            )
            .map_err(|_| does_not_open)?;
        Ok(secret)
    }

    /// The bytes to keep.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend_from_slice(&self.nonce);
        bytes.extend_from_slice(&self.sealed);
        bytes.extend_from_slice(&digest(&bytes));
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) gave.
    ///
    /// # Errors
    /// [`UnlockError::Damaged`] or [`UnlockError::FutureVersion`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, UnlockError> {
        const SHORT: UnlockError = UnlockError::Damaged("it is too short");
        let (&version, _) = bytes.split_first().ok_or(SHORT)?;
        if version > VERSION {
            return Err(UnlockError::FutureVersion(version));
        }
        let (body, kept) = bytes.split_last_chunk::<DIGEST_BYTES>().ok_or(SHORT)?;
        if *kept != digest(body) {
            return Err(UnlockError::Damaged("a byte of it was changed"));
        }
        let (&[VERSION, method], rest) = body.split_first_chunk().ok_or(SHORT)? else {
            return Err(UnlockError::Damaged("unknown layout"));
        };
        let (&memory_kib, rest) = rest.split_first_chunk().ok_or(SHORT)?;
        let (&passes, rest) = rest.split_first_chunk().ok_or(SHORT)?;
        let (&lanes, rest) = rest.split_first_chunk().ok_or(SHORT)?;
        let cost = Cost {
            memory_kib: u32::from_le_bytes(memory_kib),
            passes: u32::from_le_bytes(passes),
            lanes: u32::from_le_bytes(lanes),
        };
        let method = match method {
            0 if cost == Method::Key.cost() => Method::Key,
            1 if cost.within_bounds() => Method::Passphrase(cost),
            _ => return Err(UnlockError::Damaged("unknown method")),
        };
        let (&salt, rest) = rest.split_first_chunk().ok_or(SHORT)?;
        let (&check, rest) = rest.split_first_chunk().ok_or(SHORT)?;
        let (&nonce, rest) = rest.split_first_chunk().ok_or(SHORT)?;
        if rest.len() < TAG_BYTES || rest.len() > MAX_SECRET_BYTES + TAG_BYTES {
            return Err(UnlockError::Damaged("its length is wrong"));
        }
        Ok(Self {
            method,
            salt,
            check,
            nonce,
            sealed: rest.to_vec(),
        })
    }

    /// Everything before the nonce.
    fn head(&self) -> Vec<u8> {
        let cost = self.method.cost();
        let mut head = vec![VERSION, u8::from(self.method != Method::Key)];
        for number in [cost.memory_kib, cost.passes, cost.lanes] {
            head.extend_from_slice(&number.to_le_bytes());
        }
        head.extend_from_slice(&self.salt);
        head.extend_from_slice(&self.check);
        head
    }

    fn associated(&self, purpose: &str) -> Vec<u8> {
        let mut associated = self.head();
        associated.extend_from_slice(purpose.as_bytes());
        associated
    }
}

fn digest(bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut digest = [0; DIGEST_BYTES];
    blake3::Hasher::new()
        .update(bytes)
        .finalize_xof()
        .fill(&mut digest);
    digest
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], UnlockError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| UnlockError::Entropy)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };

    fn passphrase(text: &str) -> Unlock {
        Unlock::passphrase(text)
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_passphrase_and_purpose_only() {
        let sealed = SealedSecret::seal("p", b"secret", &passphrase("right"), CHEAP).unwrap();
        let sealed = SealedSecret::from_bytes(&sealed.to_bytes()).unwrap();
        let opened = sealed.open("p", &passphrase("right")).unwrap();
        assert_eq!(&opened[..], b"secret");
        for wrong in [passphrase("wrong"), passphrase(""), Unlock::key([0; 32])] {
            assert_eq!(sealed.open("p", &wrong).unwrap_err(), UnlockError::WrongKey);
        }
        assert!(matches!(
            sealed.open("q", &passphrase("right")),
            Err(UnlockError::Damaged(_))
        ));
    }

    #[test]
    fn a_key_of_the_app_opens_without_a_derivation() {
        let sealed = SealedSecret::seal("p", b"secret", &Unlock::key([7; 32]), CHEAP).unwrap();
        let sealed = SealedSecret::from_bytes(&sealed.to_bytes()).unwrap();
        let opened = sealed.open("p", &Unlock::key([7; 32])).unwrap();
        assert_eq!(&opened[..], b"secret");
        for wrong in [passphrase("7"), Unlock::key([8; 32])] {
            assert_eq!(sealed.open("p", &wrong).unwrap_err(), UnlockError::WrongKey);
        }
    }

    #[test]
    fn a_changed_byte_is_damage_and_never_a_wrong_passphrase() {
        let unlock = passphrase("right");
        let good = SealedSecret::seal("p", b"secret", &unlock, CHEAP).unwrap();
        let good = good.to_bytes();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            let error = SealedSecret::from_bytes(&bytes).unwrap_err();
            match at {
                0 => assert_eq!(error, UnlockError::FutureVersion(0x11)),
                _ => assert!(matches!(error, UnlockError::Damaged(_)), "byte {at}"),
            }
        }
        for len in 0..good.len() {
            assert!(SealedSecret::from_bytes(&good[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn a_forged_header_can_t_ask_for_all_the_memory() {
        let mut sealed = SealedSecret::seal("p", b"s", &passphrase("right"), CHEAP).unwrap();
        for cost in [
            Cost {
                memory_kib: u32::MAX,
                ..CHEAP
            },
            Cost {
                passes: u32::MAX,
                ..CHEAP
            },
            Cost {
                lanes: u32::MAX,
                ..CHEAP
            },
        ] {
            sealed.method = Method::Passphrase(cost);
            assert!(matches!(
                SealedSecret::from_bytes(&sealed.to_bytes()),
                Err(UnlockError::Damaged(_))
            ));
            assert_eq!(
                SealedSecret::seal("p", b"s", &passphrase("right"), cost).unwrap_err(),
                UnlockError::Cost
            );
        }
    }

    #[test]
    fn a_weaker_cost_put_in_the_header_opens_nothing() {
        let mut sealed = SealedSecret::seal("p", b"s", &passphrase("right"), CHEAP).unwrap();
        sealed.method = Method::Passphrase(Cost { passes: 2, ..CHEAP });
        assert_eq!(
            sealed.open("p", &passphrase("right")).unwrap_err(),
            UnlockError::WrongKey
        );
    }

    #[test]
    fn the_same_secret_is_never_sealed_twice_alike() {
        let seal = || SealedSecret::seal("p", b"secret", &Unlock::key([7; 32]), CHEAP).unwrap();
        let (one, two) = (seal(), seal());
        assert_ne!(one.nonce, two.nonce);
        assert_ne!(one.check, two.check);
        assert_ne!(one.sealed, two.sealed);
    }

    #[test]
    fn a_secret_that_is_too_long_is_refused() {
        let secret = [0; MAX_SECRET_BYTES + 1];
        assert_eq!(
            SealedSecret::seal("p", &secret, &Unlock::key([7; 32]), CHEAP).unwrap_err(),
            UnlockError::TooLong
        );
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?} {:?}", passphrase("hunter2"), Unlock::key([0xab; 32]));
        assert_eq!(shown, "Unlock(passphrase) Unlock(key)");
    }
}
