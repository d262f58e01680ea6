//! Where the peer of a session reads, and what it is told of where we do.

use std::sync::Arc;
use std::time::Duration;

use outlive_core::engine::{Engine, SendOptions, Ticket};
use outlive_core::limits::{MAILBOXES, MAILBOXES_AGAIN, MESSAGE_TTL};
use outlive_core::link::{LinkClass, Reads};
use outlive_core::record::{Key, MailboxesRecord, Record, Told};
use outlive_core::wire::signal::{Mailboxes, Signal};
use outlive_core::{ChannelId, Epoch, Mailbox, MessageId, WallTime};
use tokio::sync::watch;

use super::input::Reply;
use super::{Bound, Task, Waiter};
use crate::error::Error;
use crate::mailboxes::{Elsewhere, Here, Place};
use crate::node::Inner;
use crate::relay::ELSEWHERE_RANK;

/// The shortest time between two changes of where a peer says that it reads that are gone by at once. Whoever
/// is told where to dial is not to be led from one host to the next.
const SAID_APART: Duration = Duration::from_secs(60);

/// Relays that we have left at which a peer is sought that never said where it reads.
const SOUGHT: usize = 8;

/// How long a session stays awake at most to tell its peer that something came, while no link leads to it.
pub(super) const OWES: Duration = Duration::from_secs(60);

/// What a session knows of mailboxes.
pub(super) struct Mail {
    record: MailboxesRecord,
    /// Whether that was read from the store. Where it makes no difference, it is not until it changes.
    loaded: bool,
    /// The relays of this node.
    pub(super) here: watch::Receiver<Arc<Here>>,
    /// Those of the peer that are none of these.
    reached: Vec<Arc<Elsewhere>>,
    /// Whether the peer is not to learn where this host is.
    hides: bool,
    /// Whether the peer's relays could not be reached for long.
    lost: bool,
    /// Whether anything was ever heard of the peer.
    heard: bool,
    /// Whether it came by a relay of ours since the session was loaded, and since we left these.
    met: bool,
    left: Vec<String>,
    /// Whether something has changed that the way of mail depends on.
    pub(super) stale: bool,
    /// When a relay is next dialed because the peer says that it reads there.
    next_said: Duration,
    /// When that is to be looked at.
    pub(super) look_at: Option<Duration>,
    word: Word,
    /// The last word of where we read, as long as it may be taken back.
    ticket: Option<Ticket>,
}

/// Whether the peer is to be told where we read.
enum Word {
    /// It knows, as far as we can tell.
    Said,
    /// It was told long ago, or did not hear of it: it is told once it was heard of since then.
    Old(WallTime),
    Due,
}

impl Mail {
    pub(super) fn new(inner: &Inner) -> Self {
        Self {
            record: MailboxesRecord::default(),
            loaded: false,
            here: inner.mailboxes.here(),
            reached: Vec::new(),
            hides: false,
            lost: false,
            heard: false,
            met: false,
            left: Vec::new(),
            stale: true,
            next_said: Duration::ZERO,
            look_at: None,
            word: Word::Said,
            ticket: None,
        }
    }

    /// Where the peer may read, the best first: as it says, and behind that as the app says, who may know
    /// better.
    fn places(&self) -> impl Iterator<Item = Place<'_>> {
        let MailboxesRecord { said, named, .. } = &self.record;
        let said = said.iter().map(Place::from);
        said.chain(named.iter().map(Place::from))
    }

    fn is_named(&self, place: Place<'_>) -> bool {
        self.record.named.iter().any(|named| named == place.relay)
    }

    /// Whether a link is over the relay at a place.
    fn is_at(here: &Here, bound: &Bound, place: Place<'_>) -> bool {
        let LinkClass::Relayed(store) = bound.class else {
            return false;
        };
        here.is_at_place(&bound.address, bound.home.then_some(store), place)
    }

    /// Whether a link is over a relay of ours, or one where the two met or are to meet: others are not to
    /// hear with whom we have to do, and what they say of it is not believed.
    fn concerns(&self, here: &Here, bound: &Bound) -> bool {
        let mut places = self.places();
        let ours = bound.home || here.left().contains(&bound.address);
        ours || places.any(|place| Self::is_at(here, bound, place))
    }

    /// Whether the peer reads what is left at the relay of a link.
    fn reads(&self, here: &Here, bound: &Bound) -> Reads {
        if bound.class == LinkClass::Direct {
            return Reads::Always;
        }
        let unknown = self.places().next().is_none();
        let is_left = || here.left().contains(&bound.address);
        let always = if unknown {
            // Of whom nothing is known uses our relays, or if it was heard of before we left others, those.
            let stays = self.heard && !self.met && !here.has_lost_all_left();
            if stays { is_left() } else { bound.home }
        } else {
            self.places().any(|place| Self::is_at(here, bound, place))
        };
        let online = bound.online == Some(true) && self.concerns(here, bound);
        let perhaps = (bound.home && (self.lost || unknown)) || (unknown && is_left());
        if always {
            Reads::Always
        } else if online || perhaps {
            Reads::Perhaps
        } else {
            Reads::Never
        }
    }

    /// The order of a link among others of its kind: that in which the peer's relays are named, behind those
    /// of this node.
    fn rank(&self, here: &Here, bound: &Bound) -> u8 {
        let mut places = self.places();
        let place = places.position(|place| Self::is_at(here, bound, place));
        let left = || here.left().iter().position(|left| *left == bound.address);
        match place
            .or_else(left)
            .and_then(|place| u8::try_from(place).ok())
        {
            Some(place) if !bound.home => ELSEWHERE_RANK.saturating_add(place),
            _ => bound.rank,
        }
    }

    /// Whether a link may come that leads to the peer.
    pub(super) const fn expects_a_link(&self) -> bool {
        !self.reached.is_empty() || self.look_at.is_some()
    }

    /// Something of the peer's was taken that came over a link.
    pub(super) const fn came_over(&mut self, bound: &Bound) {
        self.stale |= bound.home && !self.met;
        self.met |= bound.home;
    }

    /// What came is durable.
    pub(super) const fn is_heard(&mut self, heard: bool) {
        self.stale |= self.heard != heard;
    }

    /// Whether a relay may hear with whom we have to do.
    pub(super) fn may_watch(&self, bound: &Bound) -> bool {
        self.concerns(&self.here.borrow(), bound)
    }
}

impl Task {
    pub(super) async fn load_mailboxes(&mut self) -> Result<(), Error> {
        self.mail.loaded = false;
        if self.inner.mailboxes.reaches_elsewhere() {
            self.read_mailboxes().await?;
        }
        Ok(())
    }

    async fn read_mailboxes(&mut self) -> Result<(), Error> {
        if self.mail.loaded {
            return Ok(());
        }
        let store = &self.inner.store;
        let value = store.get(Key::Mailboxes(self.peer).to_bytes()).await?;
        let record = value.as_deref().map(MailboxesRecord::from_bytes);
        let hides = store.get(Key::RelayOnly(self.peer).to_bytes()).await?;
        self.mail.record = record.transpose()?.unwrap_or_default();
        self.mail.hides = hides.is_some();
        self.mail.loaded = true;
        self.mail.stale = true;
        Ok(())
    }

    /// Goes by what is known of mailboxes now.
    pub(super) fn seek_mailboxes(&mut self, engine: &mut Engine) {
        self.mail.stale = false;
        self.mail.look_at = None;
        if !self.inner.mailboxes.reaches_elsewhere() {
            return;
        }
        let here = self.mail.here.borrow_and_update().clone();
        if here.left() != self.mail.left {
            let was_left = |of: &String| self.mail.left.contains(of);
            self.mail.met &= here.left().iter().all(was_left);
            self.mail.left = here.left().to_vec();
        }
        let now = self.inner.clock.now();
        // A stranger may say what it likes.
        let stranger = self.inner.admission.is_stranger(self.peer);
        let before = std::mem::take(&mut self.mail.reached);
        if !stranger {
            self.mail.reached = self.reach_places(&here);
        }
        for relay in &self.mail.reached {
            let known = before.iter().any(|before| Arc::ptr_eq(before, relay));
            if !known && let Some(inputs) = self.inner.inputs_if_awake(self.peer) {
                relay.attach(&self.inner, self.peer, inputs);
            }
        }
        self.mail.heard = engine.session().last_seen.is_some();
        for (generation, bound) in &self.links {
            let reads = if stranger {
                Reads::Always
            } else {
                self.mail.reads(&here, bound)
            };
            let rank = self.mail.rank(&here, bound);
            engine.peer_reads(*generation, reads, rank, now);
        }
        self.watch();
        let mailboxes = here.mailboxes();
        self.mail.word = match &self.mail.record.told {
            _ if stranger || mailboxes.is_empty() => Word::Said,
            Some(told) if same(&told.mailboxes, &mailboxes) => {
                if told.lapsed || now.wall >= told.at.plus(MAILBOXES_AGAIN) {
                    Word::Old(told.at)
                } else {
                    Word::Said
                }
            }
            Some(_) | None => Word::Due,
        };
    }

    /// The relays where the peer may read that are none of ours. A new one on its word alone is dialed only
    /// if it is time.
    fn reach_places(&mut self, here: &Here) -> Vec<Arc<Elsewhere>> {
        let now = self.inner.clock.now().elapsed;
        let left = here.left().iter().take(SOUGHT).map(Place::from);
        let unknown = self.mail.places().next().is_none();
        let places = self.mail.places().chain(left.filter(|_| unknown));
        let mut reached: Vec<Arc<Elsewhere>> = Vec::new();
        let (mut next_said, mut look_at) = (self.mail.next_said, None);
        let (mut lost, mut hope) = (false, unknown);
        for place in places {
            if here.has(place) {
                hope = true;
                continue;
            }
            let is_said = !unknown && !self.mail.is_named(place);
            if is_said && self.mail.hides {
                continue;
            }
            if is_said && self.inner.reached(place).is_none() {
                if now < self.mail.next_said {
                    look_at = Some(self.mail.next_said);
                    lost |= here.is_unreachable(place.relay);
                    continue;
                }
                next_said = now + SAID_APART;
            }
            let Some(relay) = self.inner.reach(place) else {
                continue;
            };
            if here.is_unreachable(&relay.address) {
                lost = true;
            } else {
                hope = true;
            }
            if !reached.iter().any(|of| Arc::ptr_eq(of, &relay)) {
                reached.push(relay);
            }
        }
        self.mail.lost = lost && !hope;
        (self.mail.next_said, self.mail.look_at) = (next_said, look_at);
        reached
    }

    /// Tells the peer where we read, once there is anything between the two.
    pub(super) fn tell_mailboxes(&mut self, engine: &mut Engine) {
        let is_due = match self.mail.word {
            Word::Said => false,
            Word::Old(at) => engine.session().last_seen.is_some_and(|seen| seen > at),
            Word::Due => talks(engine),
        };
        if !is_due {
            return;
        }
        let mailboxes = self.mail.here.borrow().mailboxes();
        let signal = Signal::Mailboxes(Mailboxes {
            mailboxes: mailboxes.clone(),
        });
        let options = SendOptions {
            ttl: Some(MESSAGE_TTL),
            once: None,
        };
        let now = self.inner.clock.now();
        // Without room for it the next time: what has changed by then is told with it.
        let Ok(ticket) = engine.send(ChannelId::SIGNALING, &signal.to_bytes(), &options, now)
        else {
            return;
        };
        if let Some(before) = self.mail.ticket.replace(ticket) {
            engine.cancel(before, now);
        }
        self.mail.word = Word::Said;
        self.mail.record.told = Some(Told {
            mailboxes,
            at: now.wall,
            id: ticket.id,
            lapsed: false,
        });
        self.note_mailboxes(engine);
    }

    /// One of the two lost its store, or went back to an earlier one: what the peer was told may be lost.
    pub(super) fn forget_told(&mut self, engine: &mut Engine) {
        if self.mail.record.told.take().is_some() {
            self.note_mailboxes(engine);
        }
    }

    /// The time of a signal was over before it was delivered.
    pub(super) fn signal_expired(&mut self, engine: &mut Engine, id: MessageId) {
        if let Some(told) = self.mail.record.told.as_mut().filter(|told| told.id == id) {
            told.lapsed = true;
            self.note_mailboxes(engine);
        }
    }

    /// The peer has said where it reads. What it said in an epoch that is over may be old.
    pub(super) async fn hear_mailboxes(
        &mut self,
        engine: &mut Engine,
        epoch: Epoch,
        mailboxes: Vec<Mailbox>,
        reply: Reply<()>,
    ) {
        if let Err(error) = self.read_mailboxes().await {
            // The caller may have gone away.
            return drop(reply.send(Err(error)));
        }
        if engine.may_be_present(epoch) {
            self.mail.record.said = mailboxes;
            self.note_mailboxes(engine);
        }
        self.next.waiters.push(Waiter::Noted(reply));
    }

    /// The app says where it does.
    pub(super) async fn name_mailboxes(
        &mut self,
        engine: &mut Engine,
        mut relays: Vec<String>,
        reply: Reply<()>,
    ) {
        if let Err(error) = self.read_mailboxes().await {
            return drop(reply.send(Err(error)));
        }
        relays.truncate(MAILBOXES);
        self.mail.record.named = relays;
        self.note_mailboxes(engine);
        self.next.waiters.push(Waiter::Noted(reply));
    }

    pub(super) fn may_be_exposed(&mut self, exposed: bool) {
        self.mail.hides = !exposed;
        self.mail.stale = true;
    }

    fn note_mailboxes(&mut self, engine: &mut Engine) {
        self.mail.stale = true;
        engine.note(Key::Mailboxes(self.peer), Some(self.mail.record.to_bytes()));
    }
}

/// Whether these are the same mailboxes, in whatever order.
fn same(some: &[Mailbox], others: &[Mailbox]) -> bool {
    some.len() == others.len() && some.iter().all(|of| others.contains(of))
}

/// Whether either of the two has said anything to the other.
fn talks(engine: &Engine) -> bool {
    let session = engine.session();
    let mut channels = session.out.keys();
    session.peer_epoch.is_some() || channels.any(|of| *of != ChannelId::SIGNALING)
}
