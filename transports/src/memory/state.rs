//! The relay in memory itself. Every step is taken under the lock and none waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use outlive_core::transport::{
    Class, GoodbyeReason, Incoming, Outgoing, Refusal, Sender, TransportError,
};
use outlive_core::{EnvelopeId, PeerId, StoreId};
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::{Connection, Line, SAID, WATCHED};
use super::faults::Way;
use super::mailbox::{Envelope, Mailbox, acknowledged, parked};
use super::shared::Counts;
use super::trouble::{Trouble, held};

/// How an attempt to connect went.
pub(super) enum Dialed {
    Signed(Signed),
    Unreachable(&'static str),
    /// Ask again when something has changed.
    Held,
}

/// A connection as its halves need it.
pub(super) struct Signed {
    pub(super) number: u64,
    pub(super) line: Arc<Line>,
    pub(super) store: StoreId,
}

/// What there is to hear.
pub(super) enum Heard {
    Item(Incoming),
    Nothing,
    /// Nothing since this moment, and nothing ever more.
    Silence(Instant),
    End(TransportError),
}

pub(super) struct State {
    messages: usize,
    /// Drawn with the first connection, and again when the store was lost.
    pub(super) store: Option<StoreId>,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) signed_in: BTreeMap<PeerId, u64>,
    pub(super) mailboxes: BTreeMap<PeerId, Mailbox>,
    pub(super) troubles: BTreeMap<PeerId, Trouble>,
    last_connection: u64,
    last_envelope: u64,
    pub(super) down: usize,
    pub(super) unreachable: usize,
    pub(super) dialing_held: usize,
    pub(super) counts: Counts,
    told: watch::Sender<Counts>,
    pub(super) redial: watch::Sender<()>,
}

fn gone() -> TransportError {
    TransportError::Broken("the connection is gone".to_owned())
}

impl State {
    pub(super) fn new(
        messages: usize,
        told: watch::Sender<Counts>,
        redial: watch::Sender<()>,
    ) -> Self {
        Self {
            messages,
            store: None,
            connections: BTreeMap::new(),
            signed_in: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            troubles: BTreeMap::new(),
            last_connection: 0,
            last_envelope: 0,
            down: 0,
            unreachable: 0,
            dialing_held: 0,
            counts: Counts::default(),
            told,
            redial,
        }
    }

    /// A peer connects. An older connection of the same peer is told to end.
    pub(super) fn dial(&mut self, peer: PeerId) -> Dialed {
        if self.dialing_held > 0 {
            return Dialed::Held;
        }
        if self.down > 0 {
            return Dialed::Unreachable("the relay is down");
        }
        if self.unreachable > 0 {
            return Dialed::Unreachable("the connection was refused");
        }
        let Some(store) = self.store.or_else(draw_store) else {
            return Dialed::Unreachable("the operating system gave no random numbers");
        };
        self.store = Some(store);
        self.last_connection = self.last_connection.saturating_add(1);
        let number = self.last_connection;
        let connection = Connection::new(peer);
        let line = connection.line.clone();
        self.connections.insert(number, connection);
        match self.signed_in.insert(peer, number) {
            Some(old) => {
                if let Some(old) = self.connections.get_mut(&old)
                    && old.dead_since.is_none()
                {
                    old.end(TransportError::Closed(GoodbyeReason::Replaced));
                }
            }
            None => self.announce(peer, true),
        }
        self.counts.sign_ins = self.counts.sign_ins.saturating_add(1);
        self.run(number);
        self.tell();
        Dialed::Signed(Signed {
            number,
            line,
            store,
        })
    }

    /// A peer says something: as much of `items` as there is room for.
    pub(super) fn say(
        &mut self,
        number: u64,
        items: &mut VecDeque<Outgoing>,
    ) -> Result<(), TransportError> {
        loop {
            let connection = self.connections.get_mut(&number).ok_or_else(gone)?;
            if let Some(why) = &connection.ended {
                return Err(why.clone());
            }
            let room = SAID.saturating_sub(connection.said.len()).min(items.len());
            if room == 0 {
                break;
            }
            connection.said.extend(items.drain(..room));
            self.run(number);
        }
        self.tell();
        Ok(())
    }

    /// What there is to hear for a peer.
    pub(super) fn hear(&mut self, number: u64) -> Heard {
        let Some(connection) = self.connections.get_mut(&number) else {
            return Heard::End(gone());
        };
        let ended = connection.ended.clone().map(Heard::End);
        if let Some(since) = connection.dead_since {
            return ended.unwrap_or(Heard::Silence(since));
        }
        if held(&self.troubles, connection.peer, Way::FromRelay) {
            return ended.unwrap_or(Heard::Nothing);
        }
        let Some(incoming) = connection.answers.pop_front() else {
            return ended.unwrap_or(Heard::Nothing);
        };
        self.run(number);
        self.tell();
        Heard::Item(incoming)
    }

    /// A peer leaves, or its halves are gone.
    pub(super) fn leave(&mut self, number: u64, gone_for_good: bool) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.end(TransportError::Broken("closed by us".to_owned()));
        }
        self.sign_out(number);
        if gone_for_good {
            self.connections.remove(&number);
        }
        self.tell();
    }

    /// A connection counts no longer. Nothing happens if a newer one took its place.
    pub(super) fn sign_out(&mut self, number: u64) {
        let peer = self.connections.get(&number).map(|of| of.peer);
        if let Some(peer) = peer
            && self.signed_in.get(&peer) == Some(&number)
        {
            self.signed_in.remove(&peer);
            self.announce(peer, false);
        }
    }

    fn announce(&mut self, peer: PeerId, online: bool) {
        for connection in self.connections.values_mut() {
            if connection.watched.contains(&peer) {
                connection.mention(Incoming::Presence { peer, online });
            }
        }
    }

    /// The relay hears what a peer said and delivers its mail, as far as it can now.
    pub(super) fn run(&mut self, number: u64) {
        while let Some(item) = self.next_said(number) {
            self.take(number, item);
        }
        self.deliver(number);
    }

    fn next_said(&mut self, number: u64) -> Option<Outgoing> {
        let connection = self.connections.get_mut(&number)?;
        if held(&self.troubles, connection.peer, Way::ToRelay) {
            return None;
        }
        if connection.dead_since.is_some() {
            // Written into nothing.
            connection.said.clear();
        }
        if !connection.has_room() {
            return None;
        }
        let item = connection.said.pop_front();
        if item.is_some() {
            connection.line.room.notify_one();
        }
        item
    }

    fn take(&mut self, number: u64, item: Outgoing) {
        let Some(peer) = self.connections.get(&number).map(|of| of.peer) else {
            return;
        };
        match item {
            Outgoing::Submit {
                envelope,
                to,
                class: Class::NowOrNever,
                packet,
                ..
            } => {
                let there = self.signed_in.get(&to);
                if let Some(there) = there.and_then(|number| self.connections.get_mut(number)) {
                    there.mention(Incoming::Deliver {
                        from: peer.into(),
                        envelope: None,
                        packet,
                    });
                }
                self.answer(number, Incoming::Accepted { envelope });
            }
            Outgoing::Submit {
                envelope,
                to,
                class,
                ttl,
                packet,
            } => {
                let kept = Envelope {
                    class,
                    expires: Instant::now() + Duration::from_secs(u64::from(ttl)),
                    packet,
                };
                match self.keep(peer, to, kept) {
                    Ok(()) => {
                        self.answer(number, Incoming::Accepted { envelope });
                        if let Some(&there) = self.signed_in.get(&to) {
                            self.deliver(there);
                        }
                    }
                    Err(reason) => self.answer(number, Incoming::Refused { envelope, reason }),
                }
            }
            Outgoing::Acknowledge {
                from: Sender::Peer(from),
                envelopes,
            } => {
                self.with_mailbox(peer, |mailbox| {
                    for number in &envelopes {
                        mailbox.remove(from, *number);
                    }
                });
                if let Some(connection) = self.connections.get_mut(&number) {
                    acknowledged(&mut connection.windows, from, &envelopes);
                }
            }
            Outgoing::Park {
                from: Sender::Peer(from),
                envelopes,
            } => {
                if let Some(connection) = self.connections.get_mut(&number) {
                    parked(&mut connection.windows, from, &envelopes);
                }
            }
            Outgoing::Redeliver {
                from: Sender::Peer(from),
            } => {
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.windows.remove(&from);
                }
            }
            // There are no connections without a name here, so nothing waits in a slot.
            Outgoing::Acknowledge { .. }
            | Outgoing::Park { .. }
            | Outgoing::Redeliver { .. }
            | Outgoing::AcceptUnidentified { .. }
            | Outgoing::SubmitUnidentified { .. } => {}
            Outgoing::Watch { peers } => {
                let Some(connection) = self.connections.get_mut(&number) else {
                    return;
                };
                for peer in peers {
                    if connection.watched.len() >= WATCHED {
                        return;
                    }
                    connection.watched.insert(peer);
                    let online = self.signed_in.contains_key(&peer);
                    connection.mention(Incoming::Presence { peer, online });
                }
            }
        }
    }

    fn answer(&mut self, number: u64, incoming: Incoming) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.answer(incoming);
        }
    }

    /// Puts an envelope into a mailbox.
    fn keep(&mut self, from: PeerId, to: PeerId, envelope: Envelope) -> Result<(), Refusal> {
        let keep = envelope.class == Class::Keep;
        // Of control frames there is one for each sender: a full mailbox lets them pass.
        let refused = if keep { self.refusal(to) } else { None };
        if let Some(reason) = refused {
            self.counts.refused = self.counts.refused.saturating_add(1);
            return Err(reason);
        }
        self.last_envelope = self.last_envelope.saturating_add(1);
        let number = EnvelopeId(self.last_envelope);
        self.counts.taken = self.counts.taken.saturating_add(u64::from(keep));
        self.with_mailbox(to, |mailbox| mailbox.put(from, number, envelope));
        Ok(())
    }

    fn refusal(&mut self, to: PeerId) -> Option<Refusal> {
        if let Some(trouble) = self.troubles.get_mut(&to)
            && let Some((reason, left)) = &mut trouble.refusal
        {
            let reason = *reason;
            *left = left.saturating_sub(1);
            if *left == 0 {
                trouble.refusal = None;
            }
            return Some(reason);
        }
        let full = |of: &mut Mailbox, most: usize| {
            if of.messages() >= most {
                of.expire(Instant::now());
            }
            of.messages() >= most
        };
        let most = self.messages;
        self.with_mailbox(to, |mailbox| full(mailbox, most))
            .then_some(Refusal::MailboxFull)
    }

    /// Changes a mailbox, and counts what waits.
    fn with_mailbox<T>(&mut self, peer: PeerId, change: impl FnOnce(&mut Mailbox) -> T) -> T {
        let mailbox = self.mailboxes.entry(peer).or_default();
        let before = mailbox.messages();
        let result = change(mailbox);
        let rest = self.counts.waiting.saturating_sub(before);
        self.counts.waiting = rest.saturating_add(mailbox.messages());
        if mailbox.is_empty() {
            self.mailboxes.remove(&peer);
        }
        result
    }

    /// Delivers a peer's mail as far as there is room.
    fn deliver(&mut self, number: u64) {
        while let Some(connection) = self.connections.get_mut(&number)
            && connection.has_room()
        {
            let peer = connection.peer;
            let mut none = Trouble::default();
            let trouble = self.troubles.get_mut(&peer).unwrap_or(&mut none);
            if trouble.delays == 0
                && let Some(late) = connection.late.pop_front()
            {
                connection.answer(late);
                continue;
            }
            let Some(mailbox) = self.mailboxes.get_mut(&peer) else {
                return;
            };
            let before = mailbox.messages();
            let next = mailbox.next(&mut connection.windows, Instant::now());
            let rest = self.counts.waiting.saturating_sub(before);
            self.counts.waiting = rest.saturating_add(mailbox.messages());
            let Some((from, envelope, packet)) = next else {
                return;
            };
            self.counts.delivered = self.counts.delivered.saturating_add(1);
            let delivery = Incoming::Deliver {
                from: from.into(),
                envelope: Some(envelope),
                packet,
            };
            if trouble.delays > 0 && trouble.to_delay > 0 {
                trouble.to_delay -= 1;
                connection.late.push_back(delivery);
                continue;
            }
            if trouble.to_double > 0 {
                trouble.to_double -= 1;
                connection.answer(delivery.clone());
            }
            connection.answer(delivery);
        }
    }

    pub(super) fn tell(&mut self) {
        self.counts.connected = self.signed_in.len();
        let counts = self.counts;
        self.told.send_if_modified(|told| {
            let changed = *told != counts;
            *told = counts;
            changed
        });
    }
}

fn draw_store() -> Option<StoreId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(StoreId(bytes))
}
