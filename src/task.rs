//! The task of a session with work: it owns the engine, and drives it.
//!
//! ```text
//!   handles ─ Command ─┐                      ┌─ Write, Read ─▶ store
//!                      ├─▶ Task ── engine ────┼─ Transmit ────▶ link
//!   relays ── Input ───┘                      └─ Event ───────▶ hub ─▶ callbacks, inbox, receipts
//! ```
//!
//! A session without work and without a handle has no task; it is loaded again when one of both
//! appears.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use outlive_core::engine::{
    Engine, Event, Output, SendError, SendOptions, Stored, Ticket, Transmit,
};
use outlive_core::link::LinkClass;
use outlive_core::record::{InboxRecord, Key, OnceRecord, Record};
use outlive_core::store::{ReadLimit, Store, StoreError};
use outlive_core::transport::{Outgoing, Refusal};
use outlive_core::wire::frame::CloseReason;
use outlive_core::{ChannelId, Entropy, EnvelopeId, Generation, PeerId, Position};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::error::Error;
use crate::event::SessionEvent;
use crate::hub::Hub;
use crate::node::Inner;
use crate::state::LinkInfo;

/// Inputs that may wait for a session's task. When they do, whoever has one waits.
pub(crate) const INPUTS: usize = 256;

/// Sends that may wait for room in the outbox. One more fails at once.
const WAITING_SENDS: usize = 1_024;

/// How long a session without work and handles keeps its task.
const LINGER: Duration = Duration::from_secs(10);

/// How long to wait before a session is loaded again after its store failed.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Segments read at once when a session is loaded.
const LOAD_RECORDS: usize = 256;

type Rows = Result<Vec<(Bytes, Bytes)>, StoreError>;

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What a handle asks of the task.
pub(crate) enum Command {
    Send {
        channel: ChannelId,
        payload: Bytes,
        options: SendOptions,
        wait: bool,
        reply: Reply<Ticket>,
    },
    Cancel {
        ticket: Ticket,
        reply: oneshot::Sender<bool>,
    },
    AwaitConsumed {
        channel: ChannelId,
        position: Position,
    },
    Hand {
        channel: ChannelId,
        position: Position,
        record: InboxRecord,
    },
    Commit {
        channel: ChannelId,
        position: Position,
        record: InboxRecord,
        bytes: u64,
        reply: Reply<()>,
    },
    Listen {
        channel: ChannelId,
        on: bool,
    },
    Volatile {
        channel: ChannelId,
        payload: Bytes,
        reply: Reply<bool>,
    },
    Weight {
        channel: ChannelId,
        weight: u8,
    },
    /// Makes sure the session is loaded and bound.
    Wake,
    Close {
        reply: oneshot::Sender<()>,
    },
}

/// What comes to the task.
pub(crate) enum Input {
    Command(Command),
    Bind(Binding),
    Lost {
        generation: Generation,
    },
    Packet {
        generation: Generation,
        envelope: Option<EnvelopeId>,
        packet: Bytes,
    },
    Accepted {
        generation: Generation,
        envelope: EnvelopeId,
    },
    Refused {
        generation: Generation,
        envelope: EnvelopeId,
        reason: Refusal,
    },
    Presence {
        generation: Generation,
        online: bool,
    },
}

/// A link, passed in by value: its owner is the binding and nobody looks it up (I5).
pub(crate) struct Binding {
    pub(crate) generation: Generation,
    pub(crate) class: LinkClass,
    pub(crate) rank: u8,
    pub(crate) address: String,
    pub(crate) link: mpsc::Sender<ToLink>,
}

/// What a session hands to a link.
pub(crate) struct ToLink {
    pub(crate) generation: Generation,
    pub(crate) item: Outgoing,
}

struct Bound {
    link: mpsc::Sender<ToLink>,
    /// What the link had no room for. The engine holds back while there is something.
    waiting: VecDeque<Outgoing>,
}

enum Waiter {
    Send(Reply<Ticket>, Ticket),
    Commit(Reply<()>),
}

impl Waiter {
    fn answer(self, result: Result<(), Error>) {
        // Nobody may be waiting any more: the caller went away.
        match self {
            Self::Send(reply, ticket) => drop(reply.send(result.map(|()| ticket))),
            Self::Commit(reply) => drop(reply.send(result)),
        }
    }
}

enum Done {
    Idle,
    Closed,
    Cancelled,
    StoreFailed(Error),
}

struct WaitingSend {
    channel: ChannelId,
    payload: Bytes,
    options: SendOptions,
    reply: Reply<Ticket>,
}

pub(crate) struct Task {
    inner: Arc<Inner>,
    peer: PeerId,
    hub: Arc<Hub>,
    inputs: mpsc::Receiver<Input>,
    cancel: CancellationToken,
    links: BTreeMap<Generation, Bound>,
    bindings: BTreeMap<Generation, (LinkClass, u8)>,
    write: Option<BoxFuture<'static, Result<(), StoreError>>>,
    read: Option<BoxFuture<'static, Rows>>,
    /// Answers that wait for the next write, and for the one on its way.
    next_waiters: Vec<Waiter>,
    waiters: Vec<Waiter>,
    once: BTreeMap<[u8; 32], Ticket>,
    sends: VecDeque<WaitingSend>,
}

async fn pending_or<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(running) => {
            let result = running.await;
            *future = None;
            result
        }
        None => std::future::pending().await,
    }
}

impl Task {
    pub(crate) fn new(
        inner: Arc<Inner>,
        hub: Arc<Hub>,
        inputs: mpsc::Receiver<Input>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            peer: hub.peer,
            inner,
            hub,
            inputs,
            cancel,
            links: BTreeMap::new(),
            bindings: BTreeMap::new(),
            write: None,
            read: None,
            next_waiters: Vec::new(),
            waiters: Vec::new(),
            once: BTreeMap::new(),
            sends: VecDeque::new(),
        }
    }

    /// Runs until the session is idle, closed, or the node shuts down.
    pub(crate) async fn run(mut self) {
        loop {
            let done = match self.load().await {
                Ok(mut engine) => self.drive(&mut engine).await,
                Err(error) => Done::StoreFailed(error),
            };
            match done {
                Done::Idle if !self.inner.retire(self.peer, &mut self.inputs) => {}
                Done::Idle | Done::Closed | Done::Cancelled => break,
                Done::StoreFailed(error) => {
                    warn!(peer = %self.peer.short(), %error, "the session's store failed");
                    self.fail(&error);
                    self.hub.tell(&SessionEvent::StoreFailed, |_| {});
                    tokio::select! {
                        () = self.cancel.cancelled() => break,
                        () = tokio::time::sleep(STORE_RETRY) => {}
                    }
                }
            }
        }
        self.fail(&Error::Shutdown);
        self.hub.state.send_modify(|state| state.links.clear());
    }

    fn fail(&mut self, error: &Error) {
        self.write = None;
        self.read = None;
        self.once.clear();
        for waiter in self.waiters.drain(..).chain(self.next_waiters.drain(..)) {
            waiter.answer(Err(error.clone()));
        }
        for send in self.sends.drain(..) {
            // The caller may have gone away.
            let _ = send.reply.send(Err(error.clone()));
        }
    }

    async fn load(&mut self) -> Result<Engine, Error> {
        let store = &self.inner.store;
        let session = store.get(Key::Session(self.peer).to_bytes()).await?;
        let mut segments = Vec::new();
        if session.is_some() {
            let mut range = Key::all_segments(self.peer);
            let limit = ReadLimit {
                records: LOAD_RECORDS,
                bytes: 4 << 20,
            };
            loop {
                let rows = store.range(range.clone(), limit).await?;
                let Some((last, _)) = rows.last() else { break };
                range.start = [last, &[0][..]].concat().into();
                // What waits is bounded by the window of each channel; payloads are not kept.
                segments.extend(rows);
            }
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| Error::Entropy)?;
        let now = self.inner.clock.now();
        let stored = Stored { session, segments };
        let mut engine = Engine::open(
            &self.inner.identity,
            self.peer,
            self.inner.start,
            &stored,
            Entropy::from_seed(seed),
            now,
        )?;
        self.hub.progress.loaded(engine.session());
        for (&channel, inbox) in &engine.session().inboxes {
            if inbox.messages > 0 {
                self.hub.inbox_grew(channel, inbox.next);
                self.inner.message_arrived(self.peer);
            }
        }
        for channel in self.hub.listening() {
            engine.listen(channel, now);
        }
        for (&generation, &(class, rank)) in &self.bindings {
            engine.bind(generation, class, rank, now);
        }
        Ok(engine)
    }

    async fn drive(&mut self, engine: &mut Engine) -> Done {
        let mut idle_since = None;
        loop {
            while let Some(output) = engine.poll() {
                self.carry_out(engine, output);
            }
            let idle = engine.at_rest()
                && !engine.outstanding()
                && self.sends.is_empty()
                && Arc::strong_count(&self.hub) <= 1;
            idle_since = idle.then(|| idle_since.unwrap_or_else(|| self.inner.clock.now().elapsed));
            let linger = idle_since.map(|since| since + LINGER);
            let deadline = engine.deadline().into_iter().chain(linger).min();
            let at = deadline.map(|elapsed| self.inner.clock.at(elapsed));
            let blocked = self
                .links
                .iter()
                .find(|(_, bound)| !bound.waiting.is_empty());
            let blocked = blocked.map(|(generation, bound)| (*generation, bound.link.clone()));
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => {
                    return self.finish(engine).await;
                }
                result = pending_or(&mut self.write) => match result {
                    Ok(()) => {
                        engine.written(self.inner.clock.now());
                        self.once.clear();
                        for waiter in std::mem::take(&mut self.waiters) {
                            waiter.answer(Ok(()));
                        }
                    }
                    Err(error) => {
                        engine.stop();
                        return Done::StoreFailed(error.into());
                    }
                },
                result = pending_or(&mut self.read) => {
                    let read = result.map_err(Error::from).and_then(|rows| {
                        engine.read(&rows, self.inner.clock.now()).map_err(Error::from)
                    });
                    if let Err(error) = read {
                        engine.stop();
                        return Done::StoreFailed(error);
                    }
                }
                permit = reserve(blocked.as_ref()) => {
                    self.unblock(engine, permit);
                }
                input = self.inputs.recv() => {
                    let Some(input) = input else { return Done::Cancelled };
                    if let Some(done) = self.take(engine, input).await {
                        return done;
                    }
                    // Take what else is there: one packet then carries the lot.
                    for _ in 0..INPUTS {
                        let Ok(input) = self.inputs.try_recv() else { break };
                        if let Some(done) = self.take(engine, input).await {
                            return done;
                        }
                    }
                }
                () = sleep_until(at) => {
                    let now = self.inner.clock.now();
                    if linger.is_some_and(|at| at <= now.elapsed) {
                        return Done::Idle;
                    }
                    engine.tick(now);
                }
            }
        }
    }

    /// Writes what is under way before the task ends.
    async fn finish(&mut self, engine: &mut Engine) -> Done {
        for _ in 0..2 {
            if self.write.is_some() && pending_or(&mut self.write).await.is_ok() {
                engine.written(self.inner.clock.now());
                for waiter in std::mem::take(&mut self.waiters) {
                    waiter.answer(Ok(()));
                }
            }
            while let Some(output) = engine.poll() {
                if matches!(output, Output::Write(_)) {
                    self.carry_out(engine, output);
                }
            }
        }
        if self.write.is_some() && pending_or(&mut self.write).await.is_ok() {
            for waiter in std::mem::take(&mut self.waiters) {
                waiter.answer(Ok(()));
            }
        }
        Done::Cancelled
    }

    async fn take(&mut self, engine: &mut Engine, input: Input) -> Option<Done> {
        let now = self.inner.clock.now();
        match input {
            Input::Command(command) => return self.command(engine, command).await,
            Input::Bind(Binding {
                generation,
                class,
                rank,
                address,
                link,
            }) => {
                let peer = self.peer;
                self.links.insert(
                    generation,
                    Bound {
                        link,
                        waiting: VecDeque::new(),
                    },
                );
                self.bindings.insert(generation, (class, rank));
                engine.bind(generation, class, rank, now);
                debug!(peer = %peer.short(), %generation, "link bound");
                let info = LinkInfo {
                    generation,
                    class,
                    address,
                };
                let outstanding = engine.outstanding();
                self.hub
                    .tell(&SessionEvent::LinkUp { generation }, |state| {
                        state.links.push(info);
                        state.outstanding = outstanding;
                    });
                self.push(generation, Outgoing::Watch { peers: vec![peer] });
            }
            Input::Lost { generation } => self.lost(engine, generation),
            Input::Packet {
                generation,
                envelope,
                packet,
            } => {
                engine.receive(generation, envelope, packet, now);
            }
            Input::Accepted {
                generation,
                envelope,
            } => engine.accepted(generation, envelope, now),
            Input::Refused {
                generation,
                envelope,
                reason,
            } => {
                engine.refused(generation, envelope, reason, now);
            }
            Input::Presence { generation, online } => {
                if self.links.contains_key(&generation) {
                    if online {
                        engine.peer_appeared(generation, now);
                    }
                    self.hub.tell(&SessionEvent::Presence { online }, |state| {
                        state.peer_online = Some(online);
                    });
                }
            }
        }
        None
    }

    fn lost(&mut self, engine: &mut Engine, generation: Generation) {
        self.bindings.remove(&generation);
        if self.links.remove(&generation).is_none() {
            return;
        }
        engine.unbind(generation, self.inner.clock.now());
        debug!(peer = %self.peer.short(), %generation, "link lost");
        let outstanding = engine.outstanding();
        self.hub
            .tell(&SessionEvent::LinkDown { generation }, |state| {
                state.links.retain(|link| link.generation != generation);
                state.outstanding = outstanding;
                if state.links.is_empty() {
                    state.peer_online = None;
                }
            });
    }

    async fn command(&mut self, engine: &mut Engine, command: Command) -> Option<Done> {
        let now = self.inner.clock.now();
        match command {
            Command::Send {
                channel,
                payload,
                options,
                wait,
                reply,
            } => {
                if let Some(hash) = options.once {
                    let known = match self.once.get(&hash) {
                        Some(ticket) => Ok(Some(*ticket)),
                        None => sent_before(self.inner.store.clone(), self.peer, hash).await,
                    };
                    if let Some(known) = known.transpose() {
                        // The caller may have gone away.
                        let _ = reply.send(known);
                        return None;
                    }
                }
                let send = WaitingSend {
                    channel,
                    payload,
                    options,
                    reply,
                };
                if wait && !self.sends.is_empty() {
                    self.wait_for_room(send);
                } else {
                    self.send(engine, send, wait);
                }
            }
            Command::Cancel { ticket, reply } => {
                let cancelled = engine.cancel(ticket, now);
                let _ = reply.send(cancelled);
            }
            Command::AwaitConsumed { channel, position } => {
                engine.await_consumed(channel, position, now);
            }
            Command::Hand {
                channel,
                position,
                record,
            } => engine.hand(channel, position, &record),
            Command::Commit {
                channel,
                position,
                record,
                bytes,
                reply,
            } => {
                engine.commit(channel, position, &record, bytes, now);
                self.next_waiters.push(Waiter::Commit(reply));
            }
            Command::Listen { channel, on: true } => engine.listen(channel, now),
            Command::Listen { channel, on: false } => engine.unlisten(channel, now),
            Command::Volatile {
                channel,
                payload,
                reply,
            } => {
                let sent = engine
                    .send_volatile(channel, payload, now)
                    .map_err(Error::from);
                let _ = reply.send(sent);
            }
            Command::Weight { channel, weight } => engine.set_weight(channel, weight),
            Command::Wake => {}
            Command::Close { reply } => {
                engine.close(CloseReason::Closed, now);
                while let Some(output) = engine.poll() {
                    self.carry_out(engine, output);
                }
                self.inner.forget(self.peer);
                self.inputs.close();
                self.finish(engine).await;
                self.hub.registry.clear();
                let _ = reply.send(());
                return Some(Done::Closed);
            }
        }
        None
    }

    fn send(&mut self, engine: &mut Engine, send: WaitingSend, wait: bool) -> bool {
        let now = self.inner.clock.now();
        match engine.send(send.channel, &send.payload, &send.options, now) {
            Ok(ticket) => {
                if let Some(hash) = send.options.once {
                    self.once.insert(hash, ticket);
                }
                self.next_waiters.push(Waiter::Send(send.reply, ticket));
                true
            }
            Err(SendError::Full) if wait => {
                self.wait_for_room(send);
                false
            }
            Err(error) => {
                let _ = send.reply.send(Err(error.into()));
                true
            }
        }
    }

    fn wait_for_room(&mut self, send: WaitingSend) {
        if self.sends.len() < WAITING_SENDS {
            self.sends.push_back(send);
        } else {
            let _ = send.reply.send(Err(SendError::Full.into()));
        }
    }

    fn carry_out(&mut self, engine: &mut Engine, output: Output) {
        match output {
            Output::Transmit(transmit) => self.transmit(engine, transmit),
            Output::Write(batch) => {
                let store = self.inner.store.clone();
                self.waiters = std::mem::take(&mut self.next_waiters);
                self.write = Some(Box::pin(async move { store.commit(batch).await }));
            }
            Output::Read { range, limit } => {
                let store = self.inner.store.clone();
                self.read = Some(Box::pin(async move { store.range(range, limit).await }));
            }
            Output::Release {
                generation,
                envelope,
            } => {
                let item = Outgoing::Acknowledge {
                    from: self.peer,
                    envelopes: vec![envelope],
                };
                self.push(generation, item);
            }
            Output::Redeliver { generation } => {
                self.push(generation, Outgoing::Redeliver { from: self.peer });
            }
            Output::Drop { generation, reason } => {
                warn!(peer = %self.peer.short(), %generation, %reason, "link given up");
                self.lost(engine, generation);
            }
            Output::Event(event) => self.tell(engine, event),
        }
    }

    fn transmit(&mut self, engine: &mut Engine, transmit: Transmit) {
        let Transmit {
            generation,
            envelope,
            class,
            expires,
            packet,
        } = transmit;
        let now = self.inner.clock.now();
        let ttl = now.wall.until(expires).as_secs().saturating_add(1);
        let ttl = u32::try_from(ttl).unwrap_or(u32::MAX);
        self.push(
            generation,
            Outgoing::Submit {
                envelope,
                to: self.peer,
                class,
                ttl,
                packet,
            },
        );
        if self
            .links
            .get(&generation)
            .is_some_and(|bound| !bound.waiting.is_empty())
        {
            engine.writable(generation, false, now);
        }
    }

    /// Hands an item to a link, or keeps it until the link has room. What is kept is bounded: the
    /// engine stops at the first packet, and acknowledges no more than the relay has sent.
    fn push(&mut self, generation: Generation, item: Outgoing) {
        let Some(bound) = self.links.get_mut(&generation) else {
            return;
        };
        if !bound.waiting.is_empty() {
            bound.waiting.push_back(item);
            return;
        }
        match bound.link.try_send(ToLink { generation, item }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(ToLink { item, .. })) => {
                bound.waiting.push_back(item);
            }
            // The relay's task tells of its end by itself.
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }

    fn unblock(
        &mut self,
        engine: &mut Engine,
        reserved: (Generation, Option<mpsc::OwnedPermit<ToLink>>),
    ) {
        let (generation, permit) = reserved;
        let Some(bound) = self.links.get_mut(&generation) else {
            return;
        };
        let Some(permit) = permit else {
            bound.waiting.clear();
            return;
        };
        if let Some(item) = bound.waiting.pop_front() {
            permit.send(ToLink { generation, item });
        }
        if bound.waiting.is_empty() {
            engine.writable(generation, true, self.inner.clock.now());
        }
    }

    fn tell(&mut self, engine: &mut Engine, event: Event) {
        let event = match event {
            Event::Progress {
                channel,
                stage,
                below,
            } => {
                self.hub.progress.reached(channel, stage, below);
                let outstanding = engine.outstanding();
                if self.hub.state.borrow().outstanding != outstanding {
                    self.hub
                        .state
                        .send_modify(|state| state.outstanding = outstanding);
                }
                while let Some(send) = self.sends.pop_front() {
                    if !self.send(engine, send, true) {
                        // It went to the end of the line; it was the first.
                        self.sends.rotate_right(1);
                        break;
                    }
                }
                return;
            }
            Event::Inbox { channel, end } => {
                self.hub.inbox_grew(channel, end);
                self.inner.message_arrived(self.peer);
                SessionEvent::Message { channel }
            }
            Event::Ended {
                channel,
                id,
                end,
                how,
            } => {
                self.hub.progress.ended(channel, end, how);
                SessionEvent::Ended { channel, id, how }
            }
            Event::Held {
                channel,
                first,
                reason,
            } => {
                self.hub.progress.held(channel, first, reason);
                SessionEvent::Held { channel, reason }
            }
            Event::Gap {
                channel,
                epoch,
                first,
                last,
            } => SessionEvent::Gap {
                channel,
                epoch,
                first,
                last,
            },
            Event::PeerReset { epoch } => SessionEvent::PeerReset { epoch },
            Event::Renewed { epoch } => SessionEvent::Renewed { epoch },
            Event::Volatile { channel, payload } => SessionEvent::Volatile { channel, payload },
            Event::Listening { channel, listening } => {
                SessionEvent::Listening { channel, listening }
            }
            Event::PeerClosed { reason } => SessionEvent::PeerClosed { reason },
            _ => return,
        };
        self.hub.tell(&event, |_| {});
    }
}

/// The message that was sent under this key before.
async fn sent_before(
    store: Arc<dyn Store>,
    peer: PeerId,
    hash: [u8; 32],
) -> Result<Option<Ticket>, Error> {
    let Some(value) = store.get(Key::Once(peer, hash).to_bytes()).await? else {
        return Ok(None);
    };
    let OnceRecord {
        id,
        channel,
        first,
        end,
    } = OnceRecord::from_bytes(&value)?;
    Ok(Some(Ticket {
        id,
        channel,
        first,
        end,
    }))
}

async fn reserve(
    blocked: Option<&(Generation, mpsc::Sender<ToLink>)>,
) -> (Generation, Option<mpsc::OwnedPermit<ToLink>>) {
    match blocked {
        Some((generation, link)) => (*generation, link.clone().reserve_owned().await.ok()),
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
