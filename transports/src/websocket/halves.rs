//! The two halves of a connection, each owned by whoever uses it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use outlive_core::transport::{
    Incoming, Outgoing, RelayConnection, RelayReceiver, RelaySender, TransportError,
};
use outlive_core::wire::relay::{self, FromRelay, LIST_ITEMS, ToRelay};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::address::is_gone;

use super::heard::Heard;
use super::sign_in::{SignedIn, Socket, broken};

/// Bytes after which a WebSocket message is closed and the next begun. One item more than this
/// still fits into the limit of the protocol. The relay hears whole messages only: larger ones, and a
/// client on a slow link seems silent to it. A flight of segments still goes in as many messages as a
/// relay takes before the first is durable.
const BATCH_BYTES: usize = 32 * 1024;

/// Bytes a second that get through where anything does: an answer may come that much later as there was
/// to be said.
const SLOWEST: u32 = 2 * 1024;

/// What was said since the relay was heard last, and will be answered.
#[derive(Clone, Copy)]
struct Asked {
    since: Instant,
    bytes: usize,
}

pub(super) fn split(signed_in: SignedIn, heard: Heard, silence: Duration) -> RelayConnection {
    let SignedIn {
        socket,
        store,
        early,
    } = signed_in;
    let address = match socket.get_ref() {
        MaybeTlsStream::Plain(stream) => stream.get_ref().local_addr().ok(),
        MaybeTlsStream::Rustls(stream) => stream.get_ref().0.get_ref().local_addr().ok(),
        _ => None,
    };
    let (sink, stream) = socket.split();
    let (asked, asks) = watch::channel(None);
    RelayConnection {
        store,
        sender: Box::new(Sender {
            sink,
            asked: asked.clone(),
        }),
        receiver: Box::new(Receiver {
            stream,
            address: address.map(|address| address.ip()),
            early,
            silence,
            asked_at: heard.last(),
            heard,
            asked,
            asks,
        }),
    }
}

struct Sender {
    sink: SplitSink<Socket, Message>,
    asked: watch::Sender<Option<Asked>>,
}

impl Sender {
    async fn feed(&mut self, bytes: Vec<u8>, is_answered: bool) -> Result<(), TransportError> {
        if is_answered {
            self.asked.send_modify(|asked| {
                let since = Instant::now();
                let asked = asked.get_or_insert(Asked { since, bytes: 0 });
                asked.bytes = asked.bytes.saturating_add(bytes.len());
            });
        }
        self.sink.feed(Message::binary(bytes)).await.map_err(broken)
    }
}

struct Receiver {
    stream: SplitStream<Socket>,
    /// Ours, if it is known.
    address: Option<IpAddr>,
    early: VecDeque<FromRelay>,
    silence: Duration,
    heard: Heard,
    /// What was heard last when that was asked.
    asked_at: Instant,
    asked: watch::Sender<Option<Asked>>,
    asks: watch::Receiver<Option<Asked>>,
}

impl Receiver {
    /// When the relay is given up if nothing comes until then: after the silence; and after half of it if there
    /// is something to be answered, for it would have pinged us meanwhile, whatever reasons of its own it may
    /// have to be slow. `None` is longer than a clock goes.
    fn given_up_at(&mut self) -> Option<Instant> {
        let heard = self.heard.last();
        let silent = heard.checked_add(self.silence);
        let asked = *self.asks.borrow_and_update();
        let unanswered = asked.and_then(|Asked { since, bytes }| {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            let saying = Duration::from_secs(1) * bytes / SLOWEST;
            heard.max(since).checked_add(self.silence / 2 + saying)
        });
        [silent, unanswered].into_iter().flatten().min()
    }

    /// The next message; fails when the relay is given up. Cancellation-safe.
    async fn next(&mut self) -> Result<Option<Result<Message, WsError>>, TransportError> {
        loop {
            let given_up = self.given_up_at();
            tokio::select! {
                // What is there counts, however late it is looked at.
                biased;
                message = self.stream.next() => return Ok(message),
                changed = self.asks.changed() => changed.map_err(broken)?,
                () = until(given_up) => {
                    // A part of a message may have come.
                    if self.given_up_at() <= given_up {
                        return Err(TransportError::Broken("the relay fell silent".to_owned()));
                    }
                }
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Joins neighbours that say the same of envelopes of one sender.
fn merged(items: Vec<Outgoing>) -> Vec<Outgoing> {
    let mut merged: Vec<Outgoing> = Vec::with_capacity(items.len());
    for item in items {
        match (merged.last_mut(), &item) {
            (
                Some(Outgoing::Acknowledge {
                    from: last,
                    envelopes: list,
                }),
                Outgoing::Acknowledge { from, envelopes },
            )
            | (
                Some(Outgoing::Park {
                    from: last,
                    envelopes: list,
                }),
                Outgoing::Park { from, envelopes },
            ) if last == from && list.len() + envelopes.len() <= LIST_ITEMS => {
                list.extend_from_slice(envelopes);
            }
            _ => merged.push(item),
        }
    }
    merged
}

fn to_relay(item: Outgoing) -> ToRelay {
    match item {
        Outgoing::Submit {
            envelope,
            to,
            class,
            ttl,
            packet,
        } => ToRelay::Submit {
            envelope,
            to,
            class,
            ttl,
            packet,
        },
        Outgoing::Acknowledge { from, envelopes } => ToRelay::Acknowledge { from, envelopes },
        Outgoing::Park { from, envelopes } => ToRelay::Park { from, envelopes },
        Outgoing::Redeliver { from } => ToRelay::Redeliver { from },
        Outgoing::Watch { peers } => ToRelay::Watch { peers },
        Outgoing::AcceptUnidentified { tokens } => ToRelay::AcceptUnidentified { tokens },
        Outgoing::SubmitUnidentified {
            envelope,
            to,
            token,
            slot,
            class,
            ttl,
            packet,
        } => ToRelay::SubmitUnidentified {
            envelope,
            to,
            token,
            slot,
            class,
            ttl,
            packet,
        },
    }
}

#[async_trait]
impl RelaySender for Sender {
    async fn send(&mut self, items: Vec<Outgoing>) -> Result<(), TransportError> {
        let (mut bytes, mut is_answered) = (Vec::new(), false);
        for item in merged(items) {
            is_answered |= matches!(
                item,
                Outgoing::Submit { .. } | Outgoing::SubmitUnidentified { .. }
            );
            relay::encode(&to_relay(item), &mut bytes);
            if bytes.len() >= BATCH_BYTES {
                self.feed(std::mem::take(&mut bytes), is_answered).await?;
                is_answered = false;
            }
        }
        if !bytes.is_empty() {
            self.feed(bytes, is_answered).await?;
        }
        self.sink.flush().await.map_err(broken)
    }

    async fn close(&mut self) {
        /// How long a farewell may take. The other end may be gone.
        const FAREWELL: Duration = Duration::from_secs(1);
        // Whether it is heard or not, the connection ends.
        let _ = tokio::time::timeout(FAREWELL, self.sink.close()).await;
    }
}

#[async_trait]
impl RelayReceiver for Receiver {
    async fn receive(&mut self) -> Result<Incoming, TransportError> {
        loop {
            if let Some(message) = self.early.pop_front() {
                return incoming(message);
            }
            // Reading answers the relay's Pings too: tungstenite queues the Pong and writes it out
            // with the next read.
            let message = self.next().await?;
            self.asked.send_if_modified(|asked| asked.take().is_some());
            match message {
                Some(Ok(Message::Binary(bytes))) => {
                    let messages = relay::decode::<FromRelay>(&bytes)
                        .map_err(|error| TransportError::Protocol(error.to_string()))?;
                    self.early.extend(messages);
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    return Err(TransportError::Protocol("it sent text".to_owned()));
                }
                Some(Ok(Message::Close(_))) | None => {
                    return Err(TransportError::Broken("the relay closed it".to_owned()));
                }
                Some(Err(error)) => return Err(broken(error)),
            }
        }
    }

    fn has_heard(&mut self) -> bool {
        let last = self.heard.last();
        last > std::mem::replace(&mut self.asked_at, last)
    }

    fn is_stranded(&self) -> bool {
        self.address.is_some_and(is_gone)
    }
}

fn incoming(message: FromRelay) -> Result<Incoming, TransportError> {
    Ok(match message {
        FromRelay::Accepted { envelope } => Incoming::Accepted { envelope },
        FromRelay::Refused { envelope, reason } => Incoming::Refused { envelope, reason },
        FromRelay::Deliver {
            from,
            envelope,
            packet,
        } => Incoming::Deliver {
            from,
            envelope,
            packet,
        },
        FromRelay::Presence { peer, online } => Incoming::Presence { peer, online },
        FromRelay::Goodbye { reason } => return Err(TransportError::Closed(reason)),
        FromRelay::Challenge { .. }
        | FromRelay::Welcome { .. }
        | FromRelay::WelcomeUnidentified { .. } => {
            return Err(TransportError::Protocol("it signs us in twice".to_owned()));
        }
    })
}
