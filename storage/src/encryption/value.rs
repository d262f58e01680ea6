//! The sealing of one value: `version (1), nonce (24), ciphertext, tag (16)`, bound to the key of
//! its record.

use bytes::{BufMut, Bytes, BytesMut};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use outlive_core::store::StoreError;
use zeroize::Zeroizing;

use super::error::UnlockError;
use super::sealed_secret::random;

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// Bytes a sealed value has beyond the value.
pub(super) const OVERHEAD: usize = 1 + NONCE_BYTES + TAG_BYTES;

/// The key that all values of a store are sealed with.
pub(super) struct DataKey(Zeroizing<[u8; 32]>);

impl DataKey {
    pub(super) fn random() -> Result<Self, StoreError> {
        Ok(Self(Zeroizing::new(random()?)))
    }

    pub(super) fn from_slice(bytes: &[u8]) -> Result<Self, StoreError> {
        let bytes = <[u8; 32]>::try_from(bytes);
        let key = bytes.map_err(|_| UnlockError::Damaged("its length is wrong"))?;
        Ok(Self(Zeroizing::new(key)))
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0[..]
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }

    /// Seals the value of the record under `key`.
    pub(super) fn seal(&self, key: &[u8], value: &[u8]) -> Result<Bytes, StoreError> {
        // 192 random bits: a nonce is not drawn twice, however many values there are.
        let nonce: [u8; NONCE_BYTES] = random()?;
        let mut sealed = BytesMut::with_capacity(value.len().saturating_add(OVERHEAD));
        sealed.put_u8(VERSION);
        sealed.put_slice(&nonce);
        let mut body = sealed.split_off(sealed.len());
        body.put_slice(value);
        let tag = self
            .cipher()
            .encrypt_inout_detached((&nonce).into(), &associated(key), (&mut body[..]).into())
            .map_err(|_| UnlockError::TooLong)?;
        body.put_slice(&tag);
        sealed.unsplit(body);
        Ok(sealed.freeze())
    }

    /// Opens the value of the record under `key`.
    pub(super) fn open(&self, key: &[u8], sealed: Bytes) -> Result<Bytes, StoreError> {
        self.try_open(key, sealed)
            .ok_or_else(|| StoreError::Damaged {
                what: "an encrypted value was changed, or belongs to another record".to_owned(),
            })
    }

    fn try_open(&self, key: &[u8], sealed: Bytes) -> Option<Bytes> {
        let (&VERSION, rest) = sealed.split_first()? else {
            return None;
        };
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        let mut value = body.to_vec();
        self.cipher()
            .decrypt_inout_detached(
                nonce.into(),
                &associated(key),
                (&mut value[..]).into(),
                tag.into(),
            )
            .ok()?;
        Some(Bytes::from(value))
    }
}

/// What a value is bound to.
fn associated(key: &[u8]) -> Vec<u8> {
    [&[VERSION], key].concat()
}
