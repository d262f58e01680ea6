//! Where the peer of a session reads, and what it is told of where we do.

use std::sync::Arc;

use outlive_core::engine::{Engine, SendOptions};
use outlive_core::limits::{MAILBOXES, MAILBOXES_AGAIN, MESSAGE_TTL};
use outlive_core::link::{LinkClass, Reads};
use outlive_core::record::{Key, MailboxesRecord, Record, Told};
use outlive_core::wire::signal::{Mailboxes, Signal};
use outlive_core::{ChannelId, Epoch, Mailbox};
use tokio::sync::watch;

use super::input::Reply;
use super::{Bound, Task, Waiter};
use crate::error::Error;
use crate::mailboxes::{Elsewhere, Here, Place};
use crate::node::Inner;

/// What a session knows of mailboxes.
pub(super) struct Mail {
    record: MailboxesRecord,
    /// Whether that was read from the store. Where it makes no difference, it is not until it changes.
    loaded: bool,
    /// The relays of this node.
    pub(super) here: watch::Receiver<Here>,
    /// Those of the peer that are none of these.
    reached: Vec<Arc<Elsewhere>>,
    /// Whether the peer is not to learn where this host is.
    hides: bool,
    /// Whether something has changed that the way of mail depends on.
    pub(super) stale: bool,
    /// Whether the peer is to be told where we read.
    untold: bool,
}

impl Mail {
    pub(super) fn new(inner: &Inner) -> Self {
        Self {
            record: MailboxesRecord::default(),
            loaded: false,
            here: inner.mailboxes.here(),
            reached: Vec::new(),
            hides: false,
            stale: true,
            untold: false,
        }
    }

    /// Where the peer may read, the best first.
    fn places(&self) -> Vec<Place<'_>> {
        let MailboxesRecord { said, named, .. } = &self.record;
        if said.is_empty() {
            return named.iter().map(Place::from).collect();
        }
        said.iter().map(Place::from).collect()
    }

    /// Whether a relay that is none of ours may be dialed.
    fn may_reach(&self, place: Place<'_>) -> bool {
        !self.hides || self.record.named.iter().any(|named| named == place.relay)
    }

    /// Whether the peer reads what is left at the relay of a link.
    fn reads(&self, bound: &Bound) -> Reads {
        let LinkClass::Relayed(store) = bound.class else {
            return Reads::Always;
        };
        let is_there = |place: &Place<'_>| {
            place.relay == bound.address || place.store.is_some_and(|of| of == store)
        };
        let places = self.places();
        // Of whom nothing is known uses our relays, as far as we can tell.
        let unknown = places.is_empty() && bound.home;
        if unknown || places.iter().any(is_there) {
            Reads::Always
        } else if bound.online == Some(true) {
            Reads::WhilePresent
        } else {
            Reads::Never
        }
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
        if !self.inner.mailboxes.reaches_elsewhere() {
            return;
        }
        let here = self.mail.here.borrow_and_update().clone();
        // A stranger may say what it likes.
        let stranger = self.inner.admission.is_stranger(self.peer);
        let before = std::mem::take(&mut self.mail.reached);
        if !stranger {
            let places = self.mail.places().into_iter();
            let elsewhere = places.filter(|place| !here.has(*place) && self.mail.may_reach(*place));
            let reached = elsewhere.filter_map(|place| self.inner.reach(place.relay));
            self.mail.reached = reached.collect();
        }
        for relay in &self.mail.reached {
            let known = before.iter().any(|before| Arc::ptr_eq(before, relay));
            if !known && let Some(inputs) = self.inner.inputs_if_awake(self.peer) {
                relay.attach(&self.inner, self.peer, inputs);
            }
        }
        let now = self.inner.clock.now();
        for (generation, bound) in &self.links {
            let reads = if stranger {
                Reads::Always
            } else {
                self.mail.reads(bound)
            };
            engine.peer_reads(*generation, reads, now);
        }
        let mailboxes = here.mailboxes();
        let told = self.mail.record.told.as_ref();
        let is_told = told.is_some_and(|told| {
            told.mailboxes == mailboxes && now.wall < told.at.plus(MAILBOXES_AGAIN)
        });
        self.mail.untold = !is_told && !stranger && !mailboxes.is_empty();
    }

    /// Tells the peer where we read, once there is anything between the two.
    pub(super) fn tell_mailboxes(&mut self, engine: &mut Engine) {
        if !self.mail.untold || !talks(engine) {
            return;
        }
        let mailboxes = self.mail.here.borrow().mailboxes();
        let told = Told {
            mailboxes: mailboxes.clone(),
            at: self.inner.clock.now().wall,
        };
        let signal = Signal::Mailboxes(Mailboxes { mailboxes });
        let options = SendOptions {
            ttl: Some(MESSAGE_TTL),
            once: None,
        };
        let now = self.inner.clock.now();
        let sent = engine.send(ChannelId::SIGNALING, &signal.to_bytes(), &options, now);
        // Without room for it the next time: what has changed by then is told with it.
        self.mail.untold = sent.is_err();
        if sent.is_ok() {
            self.mail.record.told = Some(told);
            self.note_mailboxes(engine);
        }
    }

    /// One of the two lost its store, or went back to an earlier one: what the peer was told may be lost.
    pub(super) fn forget_told(&mut self) {
        self.mail.record.told = None;
        self.mail.stale = true;
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
        if engine.session().peer_epoch == Some(epoch) {
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

/// Whether either of the two has said anything to the other.
fn talks(engine: &Engine) -> bool {
    let session = engine.session();
    let mut channels = session.out.keys();
    session.peer_epoch.is_some() || channels.any(|of| *of != ChannelId::SIGNALING)
}
