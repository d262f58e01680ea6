//! A client that does not say who it is: it puts envelopes into mailboxes whose recipients gave it
//! a token, and nothing else.
//!
//! What it costs is counted for where it comes from: there is no peer to count it for. Nothing
//! here, nor in the log, joins that to the slots it uses.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::ws::WebSocket;
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use outlive_core::EnvelopeId;
use outlive_core::transport::{Class, GoodbyeReason, Refusal, Sender};
use outlive_core::wire::relay::{self, ToRelay};
use tokio::time::Instant;

use crate::accounts::{Cost, RateAccount};
use crate::connection::{MESSAGE_COST, Shared};
use crate::mailbox::{self, Put, Request};
use crate::refusals::Refused;
use crate::talk::{Answers, End, Heard, Sink, Talk, until};

/// Puts of one slot that go to the mailboxes together, with the client's numbers for them.
struct Group {
    slot: Sender,
    numbers: Vec<EnvelopeId>,
    puts: Vec<Put>,
}

struct Unidentified {
    talk: Talk,
    account: Arc<RateAccount>,
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
        talk: Talk::new(sink, &shared, paused),
        account,
        shared,
    };
    let end = connection.run(stream).await;
    connection.talk.finish(&end, drain_timeout).await;
    if let End::Goodbye(reason) = end {
        connection.talk.goodbye(reason).await;
    }
}

impl Unidentified {
    async fn run(&mut self, stream: &mut SplitStream<WebSocket>) -> End {
        loop {
            let reads = self.talk.has_room();
            let silent_at = self.talk.silent_at(reads);
            let step = tokio::select! {
                biased;
                () = self.shared.draining.cancelled() => Err(End::Goodbye(GoodbyeReason::Draining)),
                Some(answers) = self.talk.in_flight.next() => self.talk.answer(answers).await,
                handed = self.talk.bringing.go_on(), if self.talk.bringing.waits() => handed.map_err(End::from),
                () = until(self.talk.paused), if self.talk.paused.is_some() => {
                    self.talk.paused = None;
                    Ok(())
                }
                message = stream.next(), if reads => match self.talk.hear(message) {
                    Ok(Heard::Messages(bytes)) => self.take(&bytes).await,
                    Ok(Heard::Sign(bytes)) => {
                        self.charge(bytes, 0);
                        Ok(())
                    }
                    Err(end) => Err(end),
                },
                _ = self.talk.ping.tick() => self.talk.ping().await,
                () = until(silent_at) => Err(End::Gone),
            };
            if let Err(end) = step {
                return end;
            }
        }
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
        self.talk.paused = self.talk.paused.max(paid);
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
            let refused = match mailbox::opens(&*self.shared.store, &to, token.hash()).await {
                Ok(true) => None,
                Ok(false) => Some(Refusal::Token),
                Err(_) => Some(Refusal::Unavailable),
            };
            if let Some(reason) = refused {
                self.shared.counts.refused(reason);
                answers.push((envelope, Err(reason)));
                continue;
            }
            if class == Class::NowOrNever {
                self.shared.counts.accepted(class, packet.len());
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
            self.talk.bringing.bring(request)?;
            kept.push((numbers, durable));
        }
        self.talk.in_flight.push_back(Box::pin(async move {
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
