//! The two Noise patterns, on [snow]: `IK` for keys that both peers share, `X` for a packet to a
//! peer with whom there are none yet.
//!
//! The static keys are the peers' Ed25519 identities, taken to X25519 by the birational map of
//! [RFC 7748]. The prologue binds the protocol and both peers by name, so what was made for one pair
//! opens for no other. Randomness comes in as a seed: the same seed gives the same message, which
//! is what lets an initiation be said again after a restart.
//!
//! [RFC 7748]: https://www.rfc-editor.org/rfc/rfc7748#section-4.1

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};

use super::Locator;
use super::primitives::{Blake2s, ChaChaPoly, Seeded, X25519};
use super::secret::Secret;
use crate::{Entropy, Identity, PeerId};

/// The pattern for shared keys.
pub const SHARED: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";

/// The pattern for a single packet.
pub const ONE_WAY: &str = "Noise_X_25519_ChaChaPoly_BLAKE2s";

/// The pattern that hides a sender.
pub const UNIDENTIFIED: &str = "Noise_N_25519_ChaChaPoly_BLAKE2s";

/// Bytes that it adds to its payload.
pub(crate) const UNIDENTIFIED_BYTES: usize = 32 + 16;

/// Bytes that the one-way pattern adds to its payload.
pub(crate) const ONE_WAY_BYTES: usize = 32 + 32 + 16 + 16;

/// What a handshake begins with, so that no message of another protocol or version opens.
const SHARED_PROLOGUE: &[u8] = b"outlive session v1\0";
const ONE_WAY_PROLOGUE: &[u8] = b"outlive one-way v1\0";
const UNIDENTIFIED_PROLOGUE: &[u8] = b"outlive unidentified v1\0";

/// Keys that both peers have when a handshake is done.
pub(super) struct Shared {
    /// Under which the peer finds what we seal.
    pub(super) theirs: Locator,
    pub(super) send: Secret,
    pub(super) receive: Secret,
}

/// What snow is made of here: each primitive from the crate that keeps it, randomness from a seed.
struct Resolver {
    seed: Secret,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Seeded::from(Entropy::from_seed(
            *self.seed.bytes(),
        ))))
    }
    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(X25519::new()) as Box<dyn Dh>)
    }
    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::Blake2s).then(|| Box::<Blake2s>::default() as Box<dyn Hash>)
    }
    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly)
            .then(|| Box::<ChaChaPoly>::default() as Box<dyn Cipher>)
    }
}

#[derive(Clone, Copy)]
enum Role {
    Initiator,
    Responder,
}

fn state(
    pattern: &str,
    prologue: &[u8],
    identity: &Identity,
    peer: &PeerId,
    role: Role,
    seed: &Secret,
) -> Result<HandshakeState, snow::Error> {
    let me = identity.peer_id();
    let (first, second) = match role {
        Role::Initiator => (&me, peer),
        Role::Responder => (peer, &me),
    };
    let prologue = [prologue, first.as_bytes(), second.as_bytes()].concat();
    let secret = identity.exchange_secret();
    let public = peer.exchange_key();
    let resolver = Box::new(Resolver { seed: seed.clone() });
    let builder = Builder::with_resolver(pattern.parse()?, resolver)
        .prologue(&prologue)?
        .local_private_key(&*secret)?;
    match role {
        Role::Initiator => builder.remote_public_key(&public)?.build_initiator(),
        Role::Responder => builder.build_responder(),
    }
}

/// Whether the other end of a handshake is the peer it claims to be.
fn is(state: &HandshakeState, peer: &PeerId) -> Result<(), snow::Error> {
    if state.get_remote_static() == Some(&peer.exchange_key()[..]) {
        Ok(())
    } else {
        Err(snow::Error::Decrypt)
    }
}

fn write(state: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, snow::Error> {
    let mut message = vec![0; payload.len() + ONE_WAY_BYTES];
    let length = state.write_message(payload, &mut message)?;
    message.truncate(length);
    Ok(message)
}

fn read(state: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, snow::Error> {
    let mut payload = vec![0; message.len()];
    let length = state.read_message(message, &mut payload)?;
    payload.truncate(length);
    Ok(payload)
}

fn locator(payload: &[u8]) -> Result<Locator, snow::Error> {
    payload
        .try_into()
        .map(|bytes| Locator(u64::from_le_bytes(bytes)))
        .map_err(|_| snow::Error::Input)
}

/// The first message of a handshake: under `mine` the peer's packets are found here.
pub(super) fn initiation(
    identity: &Identity,
    peer: &PeerId,
    seed: &Secret,
    mine: Locator,
) -> Result<Vec<u8>, snow::Error> {
    let mut state = state(
        SHARED,
        SHARED_PROLOGUE,
        identity,
        peer,
        Role::Initiator,
        seed,
    )?;
    write(&mut state, &mine.0.to_le_bytes())
}

/// The answer to an initiation, and the keys it makes.
pub(super) fn respond(
    identity: &Identity,
    peer: &PeerId,
    seed: &Secret,
    mine: Locator,
    initiation: &[u8],
) -> Result<(Vec<u8>, Shared), snow::Error> {
    let mut state = state(
        SHARED,
        SHARED_PROLOGUE,
        identity,
        peer,
        Role::Responder,
        seed,
    )?;
    let theirs = locator(&read(&mut state, initiation)?)?;
    is(&state, peer)?;
    let response = write(&mut state, &mine.0.to_le_bytes())?;
    let (receive, send) = state.dangerously_get_raw_split();
    let shared = Shared {
        theirs,
        send: Secret::new(send),
        receive: Secret::new(receive),
    };
    Ok((response, shared))
}

/// The keys that a response to our initiation makes; `seed` and `mine` are those of the initiation.
pub(super) fn finish(
    identity: &Identity,
    peer: &PeerId,
    seed: &Secret,
    mine: Locator,
    response: &[u8],
) -> Result<Shared, snow::Error> {
    let mut state = state(
        SHARED,
        SHARED_PROLOGUE,
        identity,
        peer,
        Role::Initiator,
        seed,
    )?;
    write(&mut state, &mine.0.to_le_bytes())?;
    let theirs = locator(&read(&mut state, response)?)?;
    let (send, receive) = state.dangerously_get_raw_split();
    Ok(Shared {
        theirs,
        send: Secret::new(send),
        receive: Secret::new(receive),
    })
}

/// One message from us that only `peer` can open.
pub(super) fn seal_one_way(
    identity: &Identity,
    peer: &PeerId,
    seed: &Secret,
    payload: &[u8],
) -> Result<Vec<u8>, snow::Error> {
    let mut state = state(
        ONE_WAY,
        ONE_WAY_PROLOGUE,
        identity,
        peer,
        Role::Initiator,
        seed,
    )?;
    write(&mut state, payload)
}

/// What such a message from `peer` holds.
pub(super) fn open_one_way(
    identity: &Identity,
    peer: &PeerId,
    message: &[u8],
) -> Result<Vec<u8>, snow::Error> {
    // Opening draws no randomness.
    let seed = Secret::new([0; 32]);
    let mut state = state(
        ONE_WAY,
        ONE_WAY_PROLOGUE,
        identity,
        peer,
        Role::Responder,
        &seed,
    )?;
    let payload = read(&mut state, message)?;
    is(&state, peer)?;
    Ok(payload)
}

/// One message that only `recipient` can open, from nobody in particular.
pub(super) fn seal_unidentified(
    recipient: &PeerId,
    seed: &Secret,
    payload: &[u8],
) -> Result<Vec<u8>, snow::Error> {
    let resolver = Box::new(Resolver { seed: seed.clone() });
    let prologue = [UNIDENTIFIED_PROLOGUE, recipient.as_bytes()].concat();
    let mut state = Builder::with_resolver(UNIDENTIFIED.parse()?, resolver)
        .prologue(&prologue)?
        .remote_public_key(&recipient.exchange_key())?
        .build_initiator()?;
    write(&mut state, payload)
}

/// What such a message holds.
pub(super) fn open_unidentified(
    recipient: &Identity,
    message: &[u8],
) -> Result<Vec<u8>, snow::Error> {
    let seed = Secret::new([0; 32]);
    let resolver = Box::new(Resolver { seed });
    let prologue = [UNIDENTIFIED_PROLOGUE, recipient.peer_id().as_bytes()].concat();
    let secret = recipient.exchange_secret();
    let mut state = Builder::with_resolver(UNIDENTIFIED.parse()?, resolver)
        .prologue(&prologue)?
        .local_private_key(&*secret)?
        .build_responder()?;
    read(&mut state, message)
}

#[cfg(test)]
mod tests;
