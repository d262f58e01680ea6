//! Noise ([revision 34](https://noiseprotocol.org/noise.html)) once more, straight from its text and
//! on nothing but the primitives: what the document gives as the steps of a handshake is not taken
//! from the code that it checks.

use blake2::{Blake2s256, Digest};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

pub(crate) type Key = [u8; 32];

pub(crate) fn public(secret: Key) -> Key {
    x25519(secret, X25519_BASEPOINT_BYTES)
}

pub(crate) fn shared(secret: Key, public: &Key) -> Key {
    x25519(secret, *public)
}

fn hash(parts: &[&[u8]]) -> Key {
    Blake2s256::digest(parts.concat()).into()
}

/// [RFC 2104](https://www.rfc-editor.org/rfc/rfc2104) over BLAKE2s, whose blocks have 64 bytes.
fn hmac(key: &Key, data: &[u8]) -> Key {
    let pad = |with: u8| -> [u8; 64] {
        std::array::from_fn(|n| key.get(n).copied().unwrap_or_default() ^ with)
    };
    hash(&[&pad(0x5c), &hash(&[&pad(0x36), data])])
}

fn hkdf(chaining_key: &Key, input: &[u8]) -> [Key; 2] {
    let temp = hmac(chaining_key, input);
    let first = hmac(&temp, &[1]);
    let second = hmac(&temp, &[&first[..], &[2]].concat());
    [first, second]
}

/// ChaCha20-Poly1305 with Noise's nonce: four bytes of zero, then the number, little-endian.
pub(crate) fn seal(key: &Key, number: u64, header: &[u8], frames: &[u8]) -> Vec<u8> {
    let nonce: [u8; 12] = [&[0; 4][..], &number.to_le_bytes()]
        .concat()
        .try_into()
        .expect("twelve bytes");
    let payload = Payload {
        msg: frames,
        aad: header,
    };
    ChaCha20Poly1305::new(key.into())
        .encrypt(&Nonce::from(nonce), payload)
        .expect("a short message")
}

/// The state that both ends of a handshake have in common.
pub(crate) struct Symmetric {
    pub(crate) chaining_key: Key,
    pub(crate) hash: Key,
    cipher: Option<(Key, u64)>,
}

impl Symmetric {
    pub(crate) fn new(name: &str, prologue: &[u8], responder: &Key) -> Self {
        // A name that is longer than a hash is hashed, another is filled up with zeros.
        let mut start = [0; 32];
        match start.get_mut(..name.len()) {
            Some(place) => place.copy_from_slice(name.as_bytes()),
            None => start = hash(&[name.as_bytes()]),
        }
        let mut state = Self {
            chaining_key: start,
            hash: start,
            cipher: None,
        };
        state.mix_hash(prologue);
        state.mix_hash(responder);
        state
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    /// A public key, as it is.
    pub(crate) fn token(&mut self, key: &Key) -> Vec<u8> {
        self.mix_hash(key);
        key.to_vec()
    }

    /// The result of an exchange.
    pub(crate) fn mix(&mut self, secret: Key, public: &Key) -> Key {
        let shared = shared(secret, public);
        let [chaining_key, key] = hkdf(&self.chaining_key, &shared);
        self.chaining_key = chaining_key;
        self.cipher = Some((key, 0));
        shared
    }

    pub(crate) fn encrypt(&mut self, text: &[u8]) -> Vec<u8> {
        let (key, number) = self.cipher.expect("there was an exchange");
        let sealed = seal(&key, number, &self.hash, text);
        self.cipher = Some((key, number + 1));
        self.mix_hash(&sealed);
        sealed
    }

    /// The keys of the first and of the second peer.
    pub(crate) fn split(&self) -> [Key; 2] {
        hkdf(&self.chaining_key, &[])
    }
}
