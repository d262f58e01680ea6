//! What is said to a client, and heard from it, on one WebSocket.

use std::pin::Pin;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::stream::{FuturesOrdered, SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use outlive_core::EnvelopeId;
use outlive_core::store::StoreError;
use outlive_core::transport::{GoodbyeReason, Refusal};
use outlive_core::wire::relay::{self, FromRelay};
use tokio::time::Instant;

use crate::mailbox::{Bringing, WriterGone};

/// Bytes after which a WebSocket message is closed and the next begun. A client hears whole messages
/// only: larger ones, and the relay seems silent to one on a slow link.
pub(crate) const BATCH_BYTES: usize = 32 * 1024;

/// Why a connection ended.
pub(crate) enum End {
    /// We say why.
    Goodbye(GoodbyeReason),
    /// The client is gone.
    Gone,
    /// The store can't be read.
    Store(StoreError),
}

impl From<WriterGone> for End {
    fn from(_: WriterGone) -> Self {
        Self::Goodbye(GoodbyeReason::Draining)
    }
}

impl From<axum::Error> for End {
    fn from(_: axum::Error) -> Self {
        Self::Gone
    }
}

pub(crate) type Sink = SplitSink<WebSocket, Message>;
pub(crate) type Answers = Vec<(EnvelopeId, Result<(), Refusal>)>;
pub(crate) type InFlight = FuturesOrdered<Pin<Box<dyn Future<Output = Answers> + Send>>>;

pub(crate) async fn goodbye(sink: &mut Sink, reason: GoodbyeReason) {
    /// How long a farewell may take.
    const FAREWELL: Duration = Duration::from_secs(1);
    let farewell = async {
        say(sink, [FromRelay::Goodbye { reason }]).await?;
        sink.close().await.map_err(End::from)
    };
    // Whether it is heard or not, the connection ends.
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

pub(crate) async fn say(
    sink: &mut Sink,
    messages: impl IntoIterator<Item = FromRelay>,
) -> Result<(), End> {
    let mut bytes = Vec::new();
    for message in messages {
        relay::encode(&message, &mut bytes);
        if bytes.len() >= BATCH_BYTES {
            sink.feed(Message::Binary(std::mem::take(&mut bytes).into()))
                .await?;
        }
    }
    if !bytes.is_empty() {
        sink.feed(Message::Binary(bytes.into())).await?;
    }
    Ok(sink.flush().await?)
}

/// Tells a client what became of its envelopes, but waits for one that takes nothing no longer than
/// for a silent one.
pub(crate) async fn say_answers(
    sink: &mut Sink,
    answers: Answers,
    silence: Duration,
) -> Result<(), End> {
    let answers = answers.into_iter().map(|(envelope, answer)| match answer {
        Ok(()) => FromRelay::Accepted { envelope },
        Err(reason) => FromRelay::Refused { envelope, reason },
    });
    tokio::time::timeout(silence, say(sink, answers))
        .await
        .unwrap_or(Err(End::Gone))
}

/// Before a connection ends: waits until what was taken of its client is durable, and tells the client,
/// unless it is gone. A store that stands still is waited for no longer than half of `drain_timeout`; what it
/// has not begun to keep then is not kept.
pub(crate) async fn finish(
    sink: &mut Sink,
    bringing: &mut Bringing,
    in_flight: &mut InFlight,
    end: &End,
    drain_timeout: Duration,
) {
    // The rest of the time is for the goodbye.
    let patience = drain_timeout / 2;
    let mut hears = !matches!(end, End::Gone);
    if matches!(end, End::Gone | End::Goodbye(GoodbyeReason::Replaced)) {
        // What has no answer is said again, over a connection that this one must not overtake.
        bringing.give_up();
    }
    let finishing = async {
        // If the writer is gone there are no answers to wait for.
        let _ = bringing.hand_over().await;
        while let Some(answers) = in_flight.next().await {
            hears = hears && say_answers(sink, answers, patience).await.is_ok();
        }
    };
    let _ = tokio::time::timeout(patience, finishing).await;
}

/// The next binary message of a client.
pub(crate) async fn hear(stream: &mut SplitStream<WebSocket>) -> Result<Bytes, End> {
    loop {
        match stream.next().await {
            Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Text(_))) => return Err(End::Goodbye(GoodbyeReason::Protocol)),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Gone),
        }
    }
}

pub(crate) async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
