//! Signing in: Hello, Challenge, Proof, Welcome; or HelloUnidentified, WelcomeUnidentified.

use axum::extract::ws::WebSocket;
use futures_util::stream::SplitStream;
use outlive_core::PeerId;
use outlive_core::transport::GoodbyeReason;
use outlive_core::wire::relay::{self, Binding, Exported, FromRelay, ToRelay, VERSION};

use crate::connection::Shared;
use crate::talk::{End, Sink, hear, say};

/// Who is there.
pub(crate) enum Client {
    /// A peer that proved it.
    Peer(PeerId),
    /// Somebody who does not say.
    Unidentified,
}

/// Finds out who is there. If TLS ends here, the proof has to be tied to it by what it `exported`:
/// one without, or one that was given to somebody else, signs nobody in.
pub(crate) async fn sign_in(
    sink: &mut Sink,
    stream: &mut SplitStream<WebSocket>,
    shared: &Shared,
    exported: Option<&Exported>,
) -> Result<Client, End> {
    let max_ttl = u32::try_from(shared.config.max_ttl.as_secs()).unwrap_or(u32::MAX);
    let peer = match only(&hear(stream).await?)? {
        ToRelay::Hello {
            version: VERSION,
            peer,
        } => peer,
        ToRelay::HelloUnidentified { version: VERSION } => {
            let store = shared.store_id;
            say(sink, [FromRelay::WelcomeUnidentified { store, max_ttl }]).await?;
            return Ok(Client::Unidentified);
        }
        ToRelay::Hello { .. } | ToRelay::HelloUnidentified { .. } => {
            return Err(End::Goodbye(GoodbyeReason::Version));
        }
        _ => return Err(End::Goodbye(GoodbyeReason::Protocol)),
    };
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|_| End::Goodbye(GoodbyeReason::Busy))?;
    let challenge = FromRelay::Challenge {
        nonce,
        store: shared.store_id,
        binding: Binding::of(exported),
    };
    say(sink, [challenge]).await?;
    let ToRelay::Proof { signature } = only(&hear(stream).await?)? else {
        return Err(End::Goodbye(GoodbyeReason::Protocol));
    };
    relay::check_proof(&peer, &nonce, shared.store_id, exported, &signature)
        .map_err(|_| End::Goodbye(GoodbyeReason::Signature))?;
    say(sink, [FromRelay::Welcome { max_ttl }]).await?;
    Ok(Client::Peer(peer))
}

fn only(bytes: &[u8]) -> Result<ToRelay, End> {
    let mut messages = relay::decode::<ToRelay>(bytes)
        .map_err(|_| End::Goodbye(GoodbyeReason::Protocol))?
        .into_iter();
    match (messages.next(), messages.next()) {
        (Some(message), None) => Ok(message),
        _ => Err(End::Goodbye(GoodbyeReason::Protocol)),
    }
}
