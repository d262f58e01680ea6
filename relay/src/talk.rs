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
use tokio::time::{Instant, Interval};

use crate::connection::Shared;
use crate::mailbox::{Bringing, WriterGone};

/// Bytes after which a WebSocket message is closed and the next begun. A client hears whole messages
/// only: larger ones, and the relay seems silent to one on a slow link.
pub(crate) const BATCH_BYTES: usize = 32 * 1024;

/// Messages of one client whose envelopes are being made durable. While there are as many, no more
/// is read from it.
const IN_FLIGHT: usize = 16;

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
type InFlight = FuturesOrdered<Pin<Box<dyn Future<Output = Answers> + Send>>>;

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

/// The same, but waits for a client that takes nothing no longer than `most`.
async fn say_within(
    sink: &mut Sink,
    messages: impl IntoIterator<Item = FromRelay>,
    most: Duration,
) -> Result<(), End> {
    tokio::time::timeout(most, say(sink, messages))
        .await
        .unwrap_or(Err(End::Gone))
}

/// How a client is told what became of its envelopes.
fn told(answers: Answers) -> impl Iterator<Item = FromRelay> {
    answers.into_iter().map(|(envelope, answer)| match answer {
        Ok(()) => FromRelay::Accepted { envelope },
        Err(reason) => FromRelay::Refused { envelope, reason },
    })
}

/// What came of a client.
pub(crate) enum Heard {
    /// Messages, which are not decoded yet.
    Messages(Bytes),
    /// So many bytes that say no more than that it is there.
    Sign(usize),
}

fn heard(message: Option<Result<Message, axum::Error>>) -> Result<Heard, End> {
    match message {
        Some(Ok(Message::Binary(bytes))) => Ok(Heard::Messages(bytes)),
        Some(Ok(Message::Ping(bytes) | Message::Pong(bytes))) => Ok(Heard::Sign(bytes.len())),
        Some(Ok(Message::Text(_))) => Err(End::Goodbye(GoodbyeReason::Protocol)),
        Some(Ok(Message::Close(_)) | Err(_)) | None => Err(End::Gone),
    }
}

/// The next binary message of a client.
pub(crate) async fn hear(stream: &mut SplitStream<WebSocket>) -> Result<Bytes, End> {
    loop {
        if let Heard::Messages(bytes) = heard(stream.next().await)? {
            return Ok(bytes);
        }
    }
}

pub(crate) async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The talk with a client once it is known whether it is a peer: what it brings, what it is answered, and
/// whether it is still there.
pub(crate) struct Talk {
    sink: Sink,
    /// What it brings to the mailboxes. While something of that waits, no more is read from it.
    pub(crate) bringing: Bringing,
    /// Its messages whose envelopes are being made durable.
    pub(crate) in_flight: InFlight,
    /// Until when nothing is read: the client, or where it comes from, went over a rate.
    pub(crate) paused: Option<Instant>,
    /// When it is to be pinged.
    pub(crate) ping: Interval,
    silence: Duration,
    heard: Instant,
    /// Whether it could not be heard.
    deaf: bool,
}

impl Talk {
    pub(crate) fn new(sink: Sink, shared: &Shared, paused: Option<Instant>) -> Self {
        let mut ping = tokio::time::interval(shared.config.ping_every);
        ping.reset();
        Self {
            sink,
            bringing: Bringing::to(shared.mailboxes.clone()),
            in_flight: FuturesOrdered::new(),
            paused,
            ping,
            silence: shared.config.silence,
            heard: Instant::now(),
            deaf: false,
        }
    }

    /// Whether there is room for more of what the client says.
    pub(crate) fn has_room(&self) -> bool {
        self.paused.is_none() && self.in_flight.len() < IN_FLIGHT && !self.bringing.waits()
    }

    /// When the client will have been silent for too long; none while nothing is read from it: what can't be
    /// heard is no silence.
    pub(crate) fn silent_at(&mut self, reads: bool) -> Option<Instant> {
        if std::mem::replace(&mut self.deaf, !reads) && reads {
            self.heard = Instant::now();
        }
        reads.then(|| self.heard + self.silence)
    }

    /// Notes that something came, and tells what it is.
    pub(crate) fn hear(
        &mut self,
        message: Option<Result<Message, axum::Error>>,
    ) -> Result<Heard, End> {
        self.heard = Instant::now();
        heard(message)
    }

    /// Sends, but waits for a client that takes nothing no longer than for a silent one.
    pub(crate) async fn say(
        &mut self,
        messages: impl IntoIterator<Item = FromRelay>,
    ) -> Result<(), End> {
        say_within(&mut self.sink, messages, self.silence).await
    }

    /// Tells the client what became of its envelopes, in the time that it has for what is said.
    pub(crate) async fn answer(&mut self, answers: Answers) -> Result<(), End> {
        self.say(told(answers)).await
    }

    /// Pings the client, which has the same time to take that.
    pub(crate) async fn ping(&mut self) -> Result<(), End> {
        let ping = self.sink.send(Message::Ping(Bytes::new()));
        match tokio::time::timeout(self.silence, ping).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }

    /// Before the connection ends: waits until what was taken of the client is durable, and tells it, unless
    /// it is gone. A store that stands still is waited for no longer than half of `drain_timeout`; what it has
    /// not begun to keep then is not kept.
    pub(crate) async fn finish(&mut self, end: &End, drain_timeout: Duration) {
        // The rest of the time is for the goodbye.
        let patience = drain_timeout / 2;
        let mut hears = !matches!(end, End::Gone);
        if matches!(end, End::Gone | End::Goodbye(GoodbyeReason::Replaced)) {
            // What has no answer is said again, over a connection that this one must not overtake.
            self.bringing.give_up();
        }
        let finishing = async {
            // If the writer is gone there are no answers to wait for.
            let _ = self.bringing.hand_over().await;
            while let Some(answers) = self.in_flight.next().await {
                let saying = say_within(&mut self.sink, told(answers), patience);
                hears = hears && saying.await.is_ok();
            }
        };
        let _ = tokio::time::timeout(patience, finishing).await;
    }

    pub(crate) async fn goodbye(&mut self, reason: GoodbyeReason) {
        goodbye(&mut self.sink, reason).await;
    }
}
