//! The primitives that the Noise patterns are made of, each from the crate that keeps it, in the
//! shape that snow wants. No cryptography of our own is in here.

use blake2::Digest;
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Tag};
use snow::types::{Cipher, Dh, Hash, Random};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::packet::nonce;
use crate::Entropy;

const TAG_BYTES: usize = 16;

/// X25519 on the curve that the signatures use too.
pub(super) struct X25519 {
    secret: StaticSecret,
    public: PublicKey,
}

impl X25519 {
    pub(super) fn new() -> Self {
        let secret = StaticSecret::from([0; 32]);
        Self {
            public: PublicKey::from(&secret),
            secret,
        }
    }

    fn adopt(&mut self, bytes: [u8; 32]) {
        self.secret = StaticSecret::from(bytes);
        self.public = PublicKey::from(&self.secret);
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }
    fn pub_len(&self) -> usize {
        32
    }
    fn priv_len(&self) -> usize {
        32
    }
    fn set(&mut self, privkey: &[u8]) {
        if let Ok(bytes) = privkey.try_into() {
            self.adopt(bytes);
        }
    }
    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *bytes)?;
        self.adopt(*bytes);
        Ok(())
    }
    fn pubkey(&self) -> &[u8] {
        self.public.as_bytes()
    }
    fn privkey(&self) -> &[u8] {
        self.secret.as_bytes()
    }
    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let theirs = pubkey.first_chunk::<32>().ok_or(snow::Error::Dh)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(*theirs));
        // A point of small order would let anybody know the result.
        if !shared.was_contributory() {
            return Err(snow::Error::Dh);
        }
        let room = out.first_chunk_mut::<32>().ok_or(snow::Error::Dh)?;
        *room = shared.to_bytes();
        Ok(())
    }
}

/// Randomness from a seed.
pub(super) struct Seeded(Entropy);

impl From<Entropy> for Seeded {
    fn from(entropy: Entropy) -> Self {
        Self(entropy)
    }
}

impl Random for Seeded {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill(dest);
        Ok(())
    }
}

/// ChaCha20-Poly1305 ([RFC 8439](https://www.rfc-editor.org/rfc/rfc8439)).
#[derive(Default)]
pub(super) struct ChaChaPoly {
    cipher: Option<ChaCha20Poly1305>,
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.cipher = Some(ChaCha20Poly1305::new(key.into()));
    }

    fn encrypt(&self, number: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let sealed = self.cipher.as_ref().and_then(|cipher| {
            let (room, rest) = out.split_at_mut_checked(plaintext.len())?;
            let tag_room = rest.first_chunk_mut::<TAG_BYTES>()?;
            room.copy_from_slice(plaintext);
            let tag = cipher
                .encrypt_inout_detached(&nonce(number), authtext, room.into())
                .ok()?;
            tag_room.copy_from_slice(&tag);
            Some(plaintext.len() + TAG_BYTES)
        });
        // snow gives a key and room for all of it before it asks.
        sealed.unwrap_or(0)
    }

    fn decrypt(
        &self,
        number: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let cipher = self.cipher.as_ref().ok_or(snow::Error::Decrypt)?;
        let (body, tag) = ciphertext
            .split_last_chunk::<TAG_BYTES>()
            .ok_or(snow::Error::Decrypt)?;
        let room = out.get_mut(..body.len()).ok_or(snow::Error::Decrypt)?;
        room.copy_from_slice(body);
        cipher
            .decrypt_inout_detached(&nonce(number), authtext, room.into(), &Tag::from(*tag))
            .map_err(|_| snow::Error::Decrypt)?;
        Ok(body.len())
    }
}

/// BLAKE2s ([RFC 7693](https://www.rfc-editor.org/rfc/rfc7693)).
#[derive(Default)]
pub(super) struct Blake2s {
    hasher: blake2::Blake2s256,
}

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }
    fn block_len(&self) -> usize {
        64
    }
    fn hash_len(&self) -> usize {
        32
    }
    fn reset(&mut self) {
        self.hasher = blake2::Blake2s256::default();
    }
    fn input(&mut self, data: &[u8]) {
        self.hasher.update(data);
    }
    fn result(&mut self, out: &mut [u8]) {
        let hash = std::mem::take(&mut self.hasher).finalize();
        if let Some(room) = out.get_mut(..hash.len()) {
            room.copy_from_slice(&hash);
        }
    }
}
