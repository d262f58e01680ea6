//! Signing in to a relay: what a peer signs, and what ties it to the connection.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::relay::ToRelay;
use crate::{BadSignature, Identity, PeerId, StoreId};

/// What a signature for sign-in begins with, so that it is good for nothing else.
const SIGN_IN: &[u8] = b"outlive relay sign-in v1\0";

/// What TLS exports to tie a sign-in to its connection goes by this label ([RFC 5705]), without a
/// context.
///
/// [RFC 5705]: https://www.rfc-editor.org/rfc/rfc5705
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-outlive-relay-sign-in";

/// What both ends of one TLS connection know, and nobody else: no two connections export the same.
pub type Exported = [u8; 32];

/// What ties a sign-in to its connection. Without a tie, a relay can pass on another relay's
/// challenge and sign in there with the answer; with one, the answer is worth nothing elsewhere
/// (the idea of [RFC 9729]).
///
/// [RFC 9729]: https://www.rfc-editor.org/rfc/rfc9729
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Binding {
    /// Nothing: the connection is plain, or its TLS ends before the relay.
    None,
    /// What TLS 1.3 exports under [`EXPORTER_LABEL`]. Earlier versions could be made to export the
    /// same twice.
    TlsExporter,
}

impl Binding {
    /// The binding that goes with what was exported, if anything was.
    #[must_use]
    pub const fn of(exported: Option<&Exported>) -> Self {
        match exported {
            None => Self::None,
            Some(_) => Self::TlsExporter,
        }
    }
}

/// What a peer signs to sign in: a text of its own, the relay's nonce and store, the peer, and one
/// byte for the [`Binding`] (0 for none, 1 for the TLS exporter), followed by what was exported if
/// it is 1.
#[must_use]
pub fn sign_in_statement(
    nonce: &[u8; 32],
    store: StoreId,
    peer: &PeerId,
    exported: Option<&Exported>,
) -> Vec<u8> {
    let (binding, exported): (u8, &[u8]) = match exported {
        None => (0, &[]),
        Some(exported) => (1, exported),
    };
    [
        SIGN_IN,
        nonce,
        &store.0,
        peer.as_bytes(),
        &[binding],
        exported,
    ]
    .concat()
}

/// The answer to a challenge, on a connection whose TLS exported this.
#[must_use]
pub fn prove(
    identity: &Identity,
    nonce: &[u8; 32],
    store: StoreId,
    exported: Option<&Exported>,
) -> ToRelay {
    let statement = sign_in_statement(nonce, store, &identity.peer_id(), exported);
    ToRelay::Proof {
        signature: Bytes::copy_from_slice(&identity.sign(&statement)),
    }
}

/// Checks the answer to a challenge, on a connection whose TLS exported this.
///
/// # Errors
/// [`BadSignature`] if `peer` did not sign it, for this challenge and this connection.
pub fn check_proof(
    peer: &PeerId,
    nonce: &[u8; 32],
    store: StoreId,
    exported: Option<&Exported>,
    signature: &[u8],
) -> Result<(), BadSignature> {
    let signature = <&[u8; 64]>::try_from(signature).map_err(|_| BadSignature)?;
    peer.verify(&sign_in_statement(nonce, store, peer, exported), signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_good_for_its_challenge_and_its_connection_alone() {
        let identity = Identity::from_seed([1; 32]);
        let peer = identity.peer_id();
        let (nonce, store) = ([2; 32], StoreId([3; 16]));
        let ties = [None, Some([4; 32]), Some([5; 32])];
        for tie in &ties {
            let ToRelay::Proof { signature } = prove(&identity, &nonce, store, tie.as_ref()) else {
                panic!("no proof");
            };
            for other in &ties {
                let good = check_proof(&peer, &nonce, store, other.as_ref(), &signature).is_ok();
                assert_eq!(good, tie == other);
            }
            let check = |nonce, store| check_proof(&peer, nonce, store, tie.as_ref(), &signature);
            assert!(check(&[9; 32], store).is_err());
            assert!(check(&nonce, StoreId([9; 16])).is_err());
        }
    }
}
