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

mod commands;
mod ending;
mod files;
mod hanging;
mod in_hand;
mod input;
mod loading;
mod mailboxes;
mod outage;
mod outputs;
mod sends;
mod unidentified;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use outlive_core::engine::{Engine, Output};
use outlive_core::link::LinkClass;
use outlive_core::record::SendingFileRecord;
use outlive_core::store::StoreError;
use outlive_core::transport::{Lane, Outgoing};
use outlive_core::{ChannelId, Generation, PeerId, TransferId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::hanging::{Hanging, Waiter};
pub(crate) use self::in_hand::InHand;
pub(crate) use self::input::{Arrival, Binding, Command, GivenUp, INPUTS, Input, ToLink};
use self::mailboxes::{Mail, OWES};
use self::sends::WaitingSend;
use self::unidentified::Naming;
use crate::alarm::Alarm;
use crate::error::Error;
use crate::event::SessionEvent;
use crate::files::{Content, Course};
use crate::hub::{Hub, Remembered};
use crate::node::{Allowance, Inner};

/// Words for a relay about the peer's mail that may wait for a link: as many as a relay has
/// envelopes on their way to one recipient. What comes beyond is left unsaid, and the mail it was
/// about comes again with the next connection. A relay that reads nothing and delivers without end
/// makes us keep no more.
const WAITING_WORDS: usize = 4_096;

/// How long a session without work and handles keeps its task.
const LINGER: Duration = Duration::from_secs(10);

/// How long to wait before what a failing store is needed for is tried again.
pub(crate) const STORE_RETRY: Duration = Duration::from_secs(1);

struct Bound {
    class: LinkClass,
    /// Whether it is over a relay of this node's.
    home: bool,
    rank: u8,
    transport: &'static str,
    /// The address of what it goes through.
    address: String,
    /// Whether its relay says that the peer is there.
    online: Option<bool>,
    link: mpsc::Sender<ToLink>,
    given_up: Option<mpsc::Sender<GivenUp>>,
    /// Whether its relay was asked to say when the peer comes and goes.
    watches: bool,
    /// What the link had no room for. The engine holds back while there is something, and beside
    /// its packets there are at most [`WAITING_WORDS`].
    waiting: VecDeque<(Lane, Outgoing)>,
}

enum Done {
    /// Nothing is to be done. With what the next to open the session has to know.
    Idle(Remembered),
    Closed,
    Blocked,
    Cancelled,
    StoreFailed(Error),
}

/// What was read for the engine.
enum Found {
    /// Records of the store.
    Rows(Vec<(Bytes, Bytes)>),
    /// A part of a file.
    Content(TransferId, Content),
}

pub(crate) struct Task {
    inner: Arc<Inner>,
    peer: PeerId,
    hub: Arc<Hub>,
    inputs: mpsc::Receiver<Input>,
    cancel: CancellationToken,
    naming: Naming,
    mail: Mail,
    links: BTreeMap<Generation, Bound>,
    /// Links that nobody empties any more.
    ended: BTreeSet<Generation>,
    write: Option<BoxFuture<'static, Result<(), StoreError>>>,
    read: Option<BoxFuture<'static, Result<Found, Error>>>,
    /// Files on their way: at most [`SENDING_FILES`](crate::files::SENDING_FILES).
    files: BTreeMap<TransferId, SendingFileRecord>,
    /// Those of them that the peer was asked about since the session was loaded, for it is done with
    /// their messages and has not said how they ended.
    asked: BTreeSet<TransferId>,
    /// The part of a file that comes in.
    course: Option<Course>,
    /// What hangs on the next write.
    next: Hanging,
    /// What hangs on the one on its way.
    flight: Hanging,
    sends: VecDeque<WaitingSend>,
    /// Whether the outbox may have room for them again.
    room: bool,
    /// What came while the store failed and no mailbox holds: it is heard when the session is loaded.
    kept: Vec<Arrival>,
    /// What the peer may still make us keep.
    allowance: Allowance,
    /// Whether something came that is left for when the session is loaded again.
    left: bool,
}

/// Waits for a future if there is one, and takes it away when it is done. Cancellation-safe.
pub(crate) async fn pending_or<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(running) => {
            let result = running.await;
            *future = None;
            result
        }
        None => std::future::pending().await,
    }
}

/// Whether messages wait in the inbox of a channel.
fn holds_mail(engine: &Engine) -> impl Fn(ChannelId) -> bool {
    let inboxes = &engine.session().inboxes;
    |channel| {
        inboxes
            .get(&channel)
            .is_some_and(|inbox| inbox.messages > 0)
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
            mail: Mail::new(&inner),
            inner,
            hub,
            inputs,
            cancel,
            naming: Naming::Unknown,
            links: BTreeMap::new(),
            ended: BTreeSet::new(),
            write: None,
            read: None,
            files: BTreeMap::new(),
            asked: BTreeSet::new(),
            course: None,
            next: Hanging::default(),
            flight: Hanging::default(),
            sends: VecDeque::new(),
            room: false,
            kept: Vec::new(),
            allowance: Allowance::Unlimited,
            left: false,
        }
    }

    /// Runs until the session is idle, closed, or the node shuts down.
    pub(crate) async fn run(mut self) {
        let mut again = false;
        let error = loop {
            let done = match self.load().await {
                Ok(mut engine) => {
                    self.left = false;
                    if again {
                        self.hear_what_was_kept(&mut engine);
                        self.ask_for_what_was_missed();
                        // A stranger may have been accepted while nobody was told of it.
                        self.hub.moved.notify_one();
                    }
                    self.drive(&mut engine).await
                }
                Err(error) => Done::StoreFailed(error),
            };
            match done {
                Done::Idle(remembered) => {
                    if self.inner.retire(&self.hub, &mut self.inputs, remembered) {
                        break Error::Shutdown;
                    }
                }
                Done::Closed => break Error::Closed,
                Done::Blocked => break Error::Blocked(self.peer),
                Done::Cancelled => break Error::Shutdown,
                Done::StoreFailed(error) => {
                    warn!(peer = %self.peer.short(), %error, "the session's store failed");
                    self.fail(&error);
                    self.hub.tell(&SessionEvent::StoreFailed);
                    if let Some(error) = self.sit_out(&error).await {
                        break error;
                    }
                }
            }
            again = true;
        };
        self.fail(&error);
        self.hub.change(|state| {
            state.links.clear();
            state.carrier = None;
            true
        });
        self.hub.registry.end();
        self.leave_no_mail().await;
    }

    fn fail(&mut self, error: &Error) {
        self.write = None;
        self.read = None;
        // What failed to be written may be there all the same.
        self.naming = Naming::Unknown;
        let failed = Err(error.clone());
        self.flight.answer(&failed);
        self.next.answer(&failed);
        for send in self.sends.drain(..) {
            send.then.fail(error.clone());
        }
    }

    async fn drive(&mut self, engine: &mut Engine) -> Done {
        let (mut idle_since, mut alarm) = (None, Alarm::default());
        loop {
            if self.mail.stale {
                self.seek_mailboxes(engine);
            }
            self.tell_mailboxes(engine);
            while let Some(output) = engine.poll() {
                self.carry_out(engine, output);
            }
            // What came over them before is heard first.
            if !self.ended.is_empty() && self.inputs.is_empty() {
                for generation in std::mem::take(&mut self.ended) {
                    self.lost(engine, generation);
                }
                continue;
            }
            self.note_links(engine);
            if std::mem::take(&mut self.room) {
                self.send_waiting(engine).await;
                continue;
            }
            if self.write.is_none() {
                // Nothing was left to write: what they asked for had been done before.
                self.next.answer(&Ok(()));
            }
            let idle = engine.at_rest()
                && !engine.outstanding()
                && self.sends.is_empty()
                && !self.hub.is_held();
            idle_since = idle.then(|| idle_since.unwrap_or_else(|| self.inner.clock.now().elapsed));
            let lingers = if engine.owes_a_word() && self.mail.expects_a_link() {
                OWES
            } else {
                LINGER
            };
            let linger = idle_since.map(|since| since + lingers);
            let deadlines = engine.deadline().into_iter().chain(linger);
            let deadline = deadlines.chain(self.mail.look_at).min();
            let at = deadline.map(|elapsed| self.inner.clock.at(elapsed));
            let blocked = self
                .links
                .iter()
                .filter(|(_, bound)| !bound.waiting.is_empty());
            let blocked: Vec<_> = blocked
                .map(|(generation, bound)| (*generation, bound.link.clone()))
                .collect();
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => {
                    self.finish(engine).await;
                    return Done::Cancelled;
                }
                result = pending_or(&mut self.write) => match result {
                    Ok(()) => self.written(engine),
                    Err(error) => {
                        engine.stop();
                        return Done::StoreFailed(error.into());
                    }
                },
                result = pending_or(&mut self.read) => {
                    let now = self.inner.clock.now();
                    let read = result.and_then(|found| match found {
                        Found::Rows(rows) => Ok(engine.read(&rows, now)?),
                        Found::Content(transfer, content) => {
                            self.file_read(engine, transfer, content);
                            Ok(())
                        }
                    });
                    if let Err(error) = read {
                        engine.stop();
                        self.land(engine).await;
                        return Done::StoreFailed(error);
                    }
                }
                permit = outputs::room(&blocked) => {
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
                    // An app that keeps them full keeps the alarm from ringing.
                    let now = self.inner.clock.now();
                    if engine.deadline().is_some_and(|at| at <= now.elapsed) {
                        engine.tick(now);
                    }
                }
                Ok(()) = self.mail.here.changed() => self.mail.stale = true,
                // Nothing else may ever happen on a session that nobody holds any more.
                () = self.hub.let_go.notified() => {}
                () = alarm.at(at) => {
                    let now = self.inner.clock.now();
                    if linger.is_some_and(|at| at <= now.elapsed) {
                        return Done::Idle(self.remembered(engine));
                    }
                    self.mail.stale |= self.mail.look_at.is_some_and(|at| at <= now.elapsed);
                    engine.tick(now);
                }
            }
        }
    }

    /// What was under way is durable.
    fn written(&mut self, engine: &mut Engine) {
        engine.written(self.inner.clock.now());
        self.mail.is_heard(engine.session().last_seen.is_some());
        if let Some(naming) = self.flight.naming.take() {
            self.naming = naming;
            engine.ask_relays_again(self.inner.clock.now());
        }
        self.flight.answer(&Ok(()));
        // Another epoch of the peer, how far its app is, the end of a file and room are all known by
        // writes.
        self.ask_about_files(engine);
    }

    /// Waits for what is on its way to the store, and tells what follows from it. It may land though the
    /// session has failed; were that loaded again before, it would not know of it.
    async fn land(&mut self, engine: &mut Engine) {
        if self.write.is_some() && pending_or(&mut self.write).await.is_ok() {
            self.written(engine);
            while let Some(output) = engine.poll() {
                if matches!(output, Output::Event(_)) {
                    self.carry_out(engine, output);
                }
            }
        }
    }

    fn note_links(&self, engine: &Engine) {
        let doubt = engine.doubts_a_link();
        self.hub
            .doubt
            .send_if_modified(|known| std::mem::replace(known, doubt) != doubt);
        let carrier = engine.carrier();
        self.hub.change(|state| {
            let known = state.links.iter().map(|link| link.generation);
            let carrier = carrier.filter(|carrier| known.clone().any(|g| g == *carrier));
            std::mem::replace(&mut state.carrier, carrier) != carrier
        });
        // No reason to look for another way: whoever does watches for what the link carries.
        self.hub.state.send_if_modified(|state| {
            let mut changed = false;
            for (generation, now) in engine.link_states() {
                let mut links = state.links.iter_mut();
                if let Some(link) = links.find(|link| link.generation == generation) {
                    changed |= std::mem::replace(&mut link.state, now) != now;
                }
            }
            changed
        });
    }

    fn remembered(&self, engine: &Engine) -> Remembered {
        self.hub.remembered(holds_mail(engine))
    }
}
