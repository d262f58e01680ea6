//! A client that does not say who it is: it puts envelopes into mailboxes whose recipients gave it
//! a token, and nothing else.
//!
//! What it costs is counted for where it comes from: there is no peer to count it for. Nothing
//! here, nor in the log, joins that to the slots it uses.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::stream::{FuturesOrdered, SplitStream};
use futures_util::{SinkExt, StreamExt};
use outlive_core::EnvelopeId;
use outlive_core::transport::{Class, GoodbyeReason, Refusal, Sender};
use outlive_core::wire::relay::{self, ToRelay};
use tokio::time::Instant;

use crate::accounts::{Cost, RateAccount};
use crate::connection::{IN_FLIGHT, MESSAGE_COST, Shared};
use crate::mailbox::{self, Bringing, Put, Request};
use crate::refusals::Refused;
use crate::talk::{Answers, End, InFlight, Sink, finish, goodbye, say_answers, until};

/// Puts of one slot that go to the mailboxes together, with the client's numbers for them.
struct Group {
    slot: Sender,
    numbers: Vec<EnvelopeId>,
    puts: Vec<Put>,
}

struct Unidentified {
    /// What it brings to the mailboxes. While something of that waits, no more is read from it.
    bringing: Bringing,
    in_flight: InFlight,
    sink: Sink,
    account: Arc<RateAccount>,
    /// Until when nothing is read: where it comes from went over a rate.
    paused: Option<Instant>,
    shared: Shared,
}

/// Serves such a client until it goes, misbehaves, or the relay drains. Without a `source` that
/// tells clients apart, each connection has rates of its own.
pub(crate) async fn serve(
    sink: Sink,
    stream: &mut SplitStream<WebSocket>,
    shared: Shared,
    source: Option<IpAddr>,
) {
    let now = Instant::now();
    let account = source.map_or_else(Arc::default, |source| shared.sources.of(source, now));
    let paused = account.charge(shared.config.peer_rates(), Cost::default(), now);
    let drain_timeout = shared.config.drain_timeout;
    let mut connection = Unidentified {
        bringing: Bringing::to(shared.mailboxes.clone()),
        in_flight: FuturesOrdered::new(),
        sink,
        account,
        paused,
        shared,
    };
    let end = connection.run(stream).await;
    finish(
        &mut connection.sink,
        &mut connection.bringing,
        &mut connection.in_flight,
        &end,
        drain_timeout,
    )
    .await;
    if let End::Goodbye(reason) = end {
        goodbye(&mut connection.sink, reason).await;
    }
}

impl Unidentified {
    async fn run(&mut self, stream: &mut SplitStream<WebSocket>) -> End {
        let mut ping = tokio::time::interval(self.shared.config.ping_every);
        ping.reset();
        let mut heard = Instant::now();
        let mut deaf = false;
        let silence = self.shared.config.silence;
        loop {
            let reads =
                self.paused.is_none() && self.in_flight.len() < IN_FLIGHT && !self.bringing.waits();
            // What can't be heard is no silence.
            if std::mem::replace(&mut deaf, !reads) && reads {
                heard = Instant::now();
            }
            let step = tokio::select! {
                biased;
                () = self.shared.draining.cancelled() => Err(End::Goodbye(GoodbyeReason::Draining)),
                Some(answers) = self.in_flight.next() => self.answer(answers).await,
                handed = self.bringing.go_on(), if self.bringing.waits() => handed.map_err(End::from),
                () = until(self.paused), if self.paused.is_some() => {
                    self.paused = None;
                    Ok(())
                }
                message = stream.next(), if reads => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(Message::Binary(bytes))) => self.take(&bytes).await,
                        Some(Ok(Message::Ping(bytes) | Message::Pong(bytes))) => {
                            self.charge(bytes.len(), 0);
                            Ok(())
                        }
                        Some(Ok(Message::Text(_))) => Err(End::Goodbye(GoodbyeReason::Protocol)),
                        Some(Ok(Message::Close(_)) | Err(_)) | None => Err(End::Gone),
                    }
                }
                _ = ping.tick() => {
                    let ping = self.sink.send(Message::Ping(Bytes::new()));
                    match tokio::time::timeout(silence, ping).await {
                        Ok(Ok(())) => Ok(()),
                        Ok(Err(_)) | Err(_) => Err(End::Gone),
                    }
                }
                () = tokio::time::sleep_until(heard + silence), if reads => {
                    Err(End::Gone)
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn answer(&mut self, answers: Answers) -> Result<(), End> {
        say_answers(&mut self.sink, answers, self.shared.config.silence).await
    }

    fn charge(&mut self, bytes: usize, envelopes: usize) {
        let cost = Cost {
            envelopes: envelopes as u64,
            bytes: (bytes as u64).saturating_add(MESSAGE_COST),
            watches: 0,
        };
        let rates = self.shared.config.peer_rates();
        let paid = self.account.charge(rates, cost, Instant::now());
        if paid.is_some() {
            self.shared.refusals.count(Refused::Reading);
        }
        self.paused = self.paused.max(paid);
    }

    async fn take(&mut self, bytes: &[u8]) -> Result<(), End> {
        let messages =
            relay::decode::<ToRelay>(bytes).map_err(|_| End::Goodbye(GoodbyeReason::Protocol))?;
        self.charge(bytes.len(), messages.len());
        let mut answers = Answers::new();
        let mut groups: Vec<Group> = Vec::new();
        for message in messages {
            let ToRelay::SubmitUnidentified {
                envelope,
                to,
                token,
                slot,
                class,
                ttl,
                packet,
            } = message
            else {
                return Err(End::Goodbye(GoodbyeReason::Protocol));
            };
            let slot = Sender::Slot(slot);
            match mailbox::opens(&*self.shared.store, &to, token.hash()).await {
                Ok(true) => {}
                Ok(false) => {
                    answers.push((envelope, Err(Refusal::Token)));
                    continue;
                }
                Err(_) => {
                    answers.push((envelope, Err(Refusal::Unavailable)));
                    continue;
                }
            }
            if class == Class::NowOrNever {
                self.shared.directory.pass(slot, &to, packet);
                answers.push((envelope, Ok(())));
                continue;
            }
            let put = Put {
                to,
                class,
                ttl,
                packet,
            };
            match groups.last_mut() {
                Some(group) if group.slot == slot => {
                    group.numbers.push(envelope);
                    group.puts.push(put);
                }
                _ => groups.push(Group {
                    slot,
                    numbers: vec![envelope],
                    puts: vec![put],
                }),
            }
        }
        let mut kept = Vec::with_capacity(groups.len());
        for Group {
            slot,
            numbers,
            puts,
        } in groups
        {
            let (request, durable) = Request::put(slot, puts);
            self.bringing.bring(request)?;
            kept.push((numbers, durable));
        }
        self.in_flight.push_back(Box::pin(async move {
            for (numbers, durable) in kept {
                // If the writer is gone, nothing was accepted.
                if let Ok(durable) = durable.await {
                    answers.extend(numbers.into_iter().zip(durable));
                }
            }
            answers
        }));
        Ok(())
    }
}
