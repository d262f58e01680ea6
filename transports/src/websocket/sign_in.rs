//! Signing in: Hello, Challenge, Proof, Welcome.

use std::collections::VecDeque;

use futures_util::{SinkExt, StreamExt};
use outlive_core::transport::{IsInUse, TransportError};
use outlive_core::wire::relay::{
    self, Binding, EXPORTER_LABEL, Exported, FromRelay, ToRelay, VERSION,
};
use outlive_core::{Identity, StoreId};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::heard::Tcp;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<Tcp>>;

/// A socket on which we are known.
pub(super) struct SignedIn {
    pub(super) socket: Socket,
    pub(super) store: StoreId,
    /// What came right behind the welcome.
    pub(super) early: VecDeque<FromRelay>,
}

/// Signs in, unless the relay is one that is `in_use`: what it has us sign names its store, and is good there.
/// So whoever passes on the challenge of another relay gets no proof for that.
pub(super) async fn sign_in(
    mut socket: Socket,
    identity: &Identity,
    address: &str,
    in_use: &IsInUse<'_>,
) -> Result<SignedIn, TransportError> {
    let hello = ToRelay::Hello {
        version: VERSION,
        peer: identity.peer_id(),
    };
    say(&mut socket, &hello).await?;
    let mut heard = hear(&mut socket).await?;
    let (nonce, store, binding) = match heard.pop_front() {
        Some(FromRelay::Challenge {
            nonce,
            store,
            binding,
        }) => (nonce, store, binding),
        other => return Err(unexpected(other)),
    };
    if in_use(store, binding == Binding::TlsExporter) {
        return Err(TransportError::InUse {
            address: address.to_owned(),
            store,
        });
    }
    let exported = match binding {
        Binding::None => None,
        Binding::TlsExporter => Some(exported(&socket)?),
    };
    let proof = relay::prove(identity, &nonce, store, exported.as_ref());
    say(&mut socket, &proof).await?;
    let mut early = hear(&mut socket).await?;
    match early.pop_front() {
        Some(FromRelay::Welcome { .. }) => Ok(SignedIn {
            socket,
            store,
            early,
        }),
        other => Err(unexpected(other)),
    }
}

/// Begins a connection on which we stay unknown.
pub(super) async fn stay_unknown(mut socket: Socket) -> Result<SignedIn, TransportError> {
    let version = VERSION;
    say(&mut socket, &ToRelay::HelloUnidentified { version }).await?;
    let mut early = hear(&mut socket).await?;
    match early.pop_front() {
        Some(FromRelay::WelcomeUnidentified { store, .. }) => Ok(SignedIn {
            socket,
            store,
            early,
        }),
        other => Err(unexpected(other)),
    }
}

/// What ties a proof to this connection.
fn exported(socket: &Socket) -> Result<Exported, TransportError> {
    let MaybeTlsStream::Rustls(stream) = socket.get_ref() else {
        return Err(TransportError::Protocol(
            "it wants a proof bound to TLS on a connection without; use wss://".to_owned(),
        ));
    };
    let (_, tls) = stream.get_ref();
    tls.export_keying_material(Exported::default(), EXPORTER_LABEL, None)
        .map_err(broken)
}

fn unexpected(message: Option<FromRelay>) -> TransportError {
    match message {
        Some(FromRelay::Goodbye { reason }) => TransportError::Refused(reason.to_string()),
        _ => TransportError::Protocol("it did not sign us in".to_owned()),
    }
}

async fn say(socket: &mut Socket, message: &ToRelay) -> Result<(), TransportError> {
    let mut bytes = Vec::new();
    relay::encode(message, &mut bytes);
    socket.send(Message::binary(bytes)).await.map_err(broken)
}

async fn hear(socket: &mut Socket) -> Result<VecDeque<FromRelay>, TransportError> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) => {
                let messages = relay::decode::<FromRelay>(&bytes)
                    .map_err(|error| TransportError::Protocol(error.to_string()))?;
                return Ok(messages.into());
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                return Err(TransportError::Protocol("it sent text".to_owned()));
            }
            Some(Ok(Message::Close(_))) | None => {
                return Err(TransportError::Broken("closed while signing in".to_owned()));
            }
            Some(Err(error)) => return Err(broken(error)),
        }
    }
}

pub(super) fn broken(error: impl std::fmt::Display) -> TransportError {
    TransportError::Broken(error.to_string())
}
