//! One client: signing in, and then both ways at once.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::ws::WebSocket;
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use outlive_core::store::{Store, StoreError};
use outlive_core::transport::{Class, GoodbyeReason};
use outlive_core::wire::relay::{self, Exported, FromRelay, ToRelay};
use outlive_core::{PeerId, StoreId};
use outlive_storage::StoreClock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::accounts::{Accounts, Cost, Payers, RateAccount};
use crate::config::RelayConfig;
use crate::counts::{Counted, Counts, Kind};
use crate::directory::{Directory, Now, Presence};
use crate::health::Health;
use crate::mailbox::{Change, Mailboxes, Put, Request, What};
use crate::refusals::{RefusalLog, Refused};
use crate::sign_in::{Client, sign_in};
use crate::talk::{Answers, BATCH_BYTES, End, Heard, Talk, goodbye, until};
use crate::unidentified;
use crate::window::Window;

/// Bytes that any WebSocket message costs beside its own, so that empty ones are not free.
pub(crate) const MESSAGE_COST: u64 = 64;

/// What the connections of a relay share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<StoreClock>,
    pub(crate) store_id: StoreId,
    pub(crate) config: Arc<RelayConfig>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) peers: Arc<Accounts<PeerId, RateAccount>>,
    /// Where clients come from that do not say who they are.
    pub(crate) sources: Arc<Accounts<IpAddr, RateAccount>>,
    /// Where peers come from.
    pub(crate) addresses: Arc<Accounts<IpAddr, RateAccount>>,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) health: Arc<Health>,
    pub(crate) refusals: Arc<RefusalLog>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) draining: CancellationToken,
}

/// Serves one client until it goes, misbehaves, is replaced, or the relay drains.
pub(crate) async fn serve(
    socket: WebSocket,
    shared: Shared,
    exported: Option<Exported>,
    source: Option<IpAddr>,
) {
    let (draining, drain_timeout) = (shared.draining.clone(), shared.config.drain_timeout);
    let drained = async {
        draining.cancelled().await;
        tokio::time::sleep(drain_timeout).await;
    };
    tokio::select! {
        () = converse(socket, shared, exported, source) => {}
        () = drained => debug!("a client did not take its answers in time"),
    }
}

async fn converse(
    socket: WebSocket,
    shared: Shared,
    exported: Option<Exported>,
    source: Option<IpAddr>,
) {
    let (mut sink, mut stream) = socket.split();
    let (timeout, drain_timeout) = (shared.config.sign_in_timeout, shared.config.drain_timeout);
    let signing_in = sign_in(&mut sink, &mut stream, &shared, exported.as_ref());
    let signed_in = tokio::select! {
        result = tokio::time::timeout(timeout, signing_in) => result,
        () = shared.draining.cancelled() => Ok(Err(End::Goodbye(GoodbyeReason::Draining))),
    };
    let peer = match signed_in {
        Ok(Ok(Client::Peer(peer))) => peer,
        Ok(Ok(Client::Unidentified)) => {
            let _counted = Counted::open(shared.counts.clone(), Kind::Unidentified);
            return unidentified::serve(sink, &mut stream, shared, source).await;
        }
        Ok(Err(End::Goodbye(reason))) => {
            // Otherwise it is for reasons of our own.
            if let GoodbyeReason::Protocol | GoodbyeReason::Version | GoodbyeReason::Signature =
                reason
            {
                shared.refusals.count(Refused::SignIn);
            }
            return goodbye(&mut sink, reason).await;
        }
        Ok(Err(End::Gone | End::Store(_))) => return,
        Err(_) => {
            shared.refusals.count(Refused::SignIn);
            return goodbye(&mut sink, GoodbyeReason::Protocol).await;
        }
    };
    let _counted = Counted::open(shared.counts.clone(), Kind::SignedIn);
    let mut presence = shared.directory.enter(peer);
    let now = Instant::now();
    let account = Payers {
        peer: shared.peers.of(peer, now),
        address: source.map(|source| shared.addresses.of(source, now)),
    };
    // A debt of an earlier connection is paid first.
    let paused = account.charge(&shared.config, Cost::default(), now);
    let mut connection = Connection {
        peer,
        window: Window::new(shared.store.clone(), shared.clock.clone(), peer),
        mail: VecDeque::new(),
        talk: Talk::new(sink, &shared, paused),
        account,
        shared,
    };
    let end = connection.run(&mut stream, &mut presence).await;
    drop(presence);
    connection.talk.finish(&end, drain_timeout).await;
    match end {
        End::Goodbye(reason) => {
            debug!(peer = %peer.short(), %reason, "goodbye");
            connection.talk.goodbye(reason).await;
        }
        End::Gone => debug!(peer = %peer.short(), "gone"),
        End::Store(error) => {
            warn!(peer = %peer.short(), %error, "the mailbox can't be read");
            // Or it would come back at once, and again.
            connection.talk.goodbye(GoodbyeReason::Busy).await;
        }
    }
}

struct Connection {
    peer: PeerId,
    window: Window,
    /// What was read of the mailbox, and is not said yet.
    mail: VecDeque<FromRelay>,
    talk: Talk,
    account: Payers,
    shared: Shared,
}

/// More of the mail, once what was read before is said. Cancellation-safe, as the window is.
async fn find(
    window: &mut Window,
    mail: &VecDeque<FromRelay>,
) -> Result<Vec<FromRelay>, StoreError> {
    if mail.is_empty() {
        window.next().await
    } else {
        Ok(Vec::new())
    }
}

const fn packet_bytes(message: &FromRelay) -> usize {
    match message {
        FromRelay::Deliver { packet, .. } => packet.len(),
        _ => 0,
    }
}

/// What had a turn since all that waited had one. What others send without end comes once in a round,
/// as what the client says and a part of its mail do: none of them holds up the others.
#[derive(Default)]
struct Round {
    passed: bool,
    heard: bool,
}

impl Connection {
    async fn run(&mut self, stream: &mut SplitStream<WebSocket>, presence: &mut Presence) -> End {
        let mut round = Round::default();
        loop {
            let reads = self.talk.has_room() && !round.heard;
            let silent_at = self.talk.silent_at(reads);
            let has_mail = !self.mail.is_empty() || self.window.has_more();
            let step = tokio::select! {
                biased;
                () = presence.replaced.cancelled() => Err(End::Goodbye(GoodbyeReason::Replaced)),
                () = presence.let_go.cancelled() => Err(End::Goodbye(GoodbyeReason::Busy)),
                () = self.shared.draining.cancelled() => Err(End::Goodbye(GoodbyeReason::Draining)),
                Some(answers) = self.talk.in_flight.next() => self.talk.answer(answers).await,
                handed = self.talk.bringing.go_on(), if self.talk.bringing.waits() => handed.map_err(End::from),
                Some(now) = presence.now.recv(), if !round.passed => {
                    round.passed = true;
                    self.pass(now, presence).await
                }
                senders = presence.bell.rung() => {
                    self.window.wake(senders);
                    Ok(())
                }
                () = until(self.talk.paused), if self.talk.paused.is_some() => {
                    self.talk.paused = None;
                    Ok(())
                }
                message = stream.next(), if reads => {
                    round.heard = true;
                    match self.talk.hear(message) {
                        Ok(Heard::Messages(bytes)) => self.take(&bytes, presence),
                        Ok(Heard::Sign(bytes)) => {
                            self.charge(bytes, &[]);
                            Ok(())
                        }
                        Err(end) => Err(end),
                    }
                }
                _ = self.talk.ping.tick() => self.talk.ping().await,
                () = until(silent_at) => Err(End::Gone),
                // The store answers soon. Until then nothing is let in that could interrupt it again
                // and again.
                found = find(&mut self.window, &self.mail), if has_mail => {
                    round = Round::default();
                    self.deliver(found).await
                }
                () = std::future::ready(()), if !has_mail && (round.passed || round.heard) => {
                    round = Round::default();
                    Ok(())
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Passes on about as much as one WebSocket message takes.
    async fn pass(&mut self, first: Now, presence: &mut Presence) -> Result<(), End> {
        let mut bytes = packet_bytes(&first.message);
        let (mut messages, mut rooms) = (vec![first.message], vec![first.room]);
        while bytes < BATCH_BYTES
            && let Ok(Now { message, room }) = presence.now.try_recv()
        {
            bytes += packet_bytes(&message);
            messages.push(message);
            rooms.push(room);
        }
        let said = self.say(messages).await;
        // Only now: until it is said it takes memory.
        drop(rooms);
        said
    }

    /// Says about as much of the mail as one WebSocket message takes.
    async fn deliver(&mut self, found: Result<Vec<FromRelay>, StoreError>) -> Result<(), End> {
        self.mail.extend(found.map_err(End::Store)?);
        let (mut bytes, mut deliveries) = (0, Vec::new());
        while bytes < BATCH_BYTES
            && let Some(delivery) = self.mail.pop_front()
        {
            bytes += packet_bytes(&delivery);
            deliveries.push(delivery);
        }
        if deliveries.is_empty() {
            return Ok(());
        }
        self.say(deliveries).await
    }

    /// Says these, and counts what is delivered with them.
    async fn say(&mut self, messages: Vec<FromRelay>) -> Result<(), End> {
        let is_delivery = |message: &&FromRelay| matches!(message, FromRelay::Deliver { .. });
        let deliveries = messages.iter().filter(is_delivery).count();
        self.talk.say(messages).await?;
        self.shared.counts.delivered.add(deliveries);
        Ok(())
    }

    /// Counts a WebSocket message, and what it acknowledges. If that went over a rate of the peer, or of
    /// its address, nothing more is read from it for a while: what it wants to send waits at its end.
    fn charge(&mut self, bytes: usize, messages: &[ToRelay]) {
        let mut cost = Cost {
            bytes: (bytes as u64).saturating_add(MESSAGE_COST),
            ..Cost::default()
        };
        for message in messages {
            match message {
                // What is on its way is acknowledged for nothing; any other number makes the store
                // look for what may not be there.
                ToRelay::Acknowledge { from, envelopes } => {
                    let known = self.window.acknowledged(*from, envelopes);
                    cost.envelopes += envelopes.len().saturating_sub(known) as u64;
                }
                ToRelay::Watch { peers } => cost.watches += peers.len() as u64,
                _ => cost.envelopes += 1,
            }
        }
        let paid = self
            .account
            .charge(&self.shared.config, cost, Instant::now());
        if paid.is_some() {
            self.shared.refusals.count(Refused::Reading);
        }
        self.talk.paused = self.talk.paused.max(paid);
    }

    fn take(&mut self, bytes: &[u8], presence: &Presence) -> Result<(), End> {
        let messages =
            relay::decode::<ToRelay>(bytes).map_err(|_| End::Goodbye(GoodbyeReason::Protocol))?;
        self.charge(bytes.len(), &messages);
        let mut numbers = Vec::new();
        let mut puts = Vec::new();
        for message in messages {
            match message {
                ToRelay::Submit {
                    envelope,
                    to,
                    class: Class::NowOrNever,
                    packet,
                    ..
                } => {
                    self.shared.counts.accepted(Class::NowOrNever, packet.len());
                    self.shared.directory.pass(self.peer.into(), &to, packet);
                    let accepted: Answers = vec![(envelope, Ok(()))];
                    self.talk
                        .in_flight
                        .push_back(Box::pin(std::future::ready(accepted)));
                }
                ToRelay::Submit {
                    envelope,
                    to,
                    class,
                    ttl,
                    packet,
                } => {
                    numbers.push(envelope);
                    puts.push(Put {
                        to,
                        class,
                        ttl,
                        packet,
                    });
                }
                ToRelay::Acknowledge {
                    from: sender,
                    envelopes: numbers,
                } => {
                    self.change(What::Acknowledge { sender, numbers })?;
                }
                ToRelay::Park { from, envelopes } => self.window.parked(from, &envelopes),
                ToRelay::Redeliver { from } => self.window.redeliver(from),
                ToRelay::Watch { peers } => presence.watch(peers),
                ToRelay::AcceptUnidentified { tokens } => {
                    self.change(What::Tokens(tokens))?;
                }
                ToRelay::Hello { .. }
                | ToRelay::Proof { .. }
                | ToRelay::HelloUnidentified { .. }
                | ToRelay::SubmitUnidentified { .. } => {
                    return Err(End::Goodbye(GoodbyeReason::Protocol));
                }
            }
        }
        if puts.is_empty() {
            return Ok(());
        }
        let (request, answers) = Request::put(self.peer.into(), puts);
        self.talk.bringing.bring(request)?;
        self.talk.in_flight.push_back(Box::pin(async move {
            match answers.await {
                Ok(answers) => numbers.into_iter().zip(answers).collect(),
                // The writer is gone: nothing was accepted.
                Err(_) => Vec::new(),
            }
        }));
        Ok(())
    }

    fn change(&mut self, what: What) -> Result<(), End> {
        let recipient = self.peer;
        let change = Request::Change(Change { recipient, what });
        Ok(self.talk.bringing.bring(change)?)
    }
}
