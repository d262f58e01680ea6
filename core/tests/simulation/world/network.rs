//! Links, the relay and its mailboxes, and everything on its way between them.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use outlive_core::engine::{Taken, Transmit};
use outlive_core::link::{LinkClass, Reads};
use outlive_core::record::{Key, OutboxRecord, OutboxState, Record, Session};
use outlive_core::transport::{Class, Refusal};
use outlive_core::wire::frame::{Frame, Offered, Received};
use outlive_core::wire::packet;
use outlive_core::{EnvelopeId, Epoch, Generation};

use super::{Connection, Envelope, Fault, FromRelay, ToRelay, World};
use crate::peer::{Mail, Peer};

impl World {
    pub(super) fn spoke(&mut self, who: usize, transmit: &Transmit, frames: Vec<u8>) {
        let frames = packet::decode(&frames.into()).expect("own packet");
        self.log(|| {
            format!(
                "  {who} -> {} {:?} {frames:?}",
                transmit.generation, transmit.class
            )
        });
        self.written_down(who, &transmit.packet);
        for frame in frames {
            if let Some(what) = not_durable(&self.peers[who], &frame) {
                self.fault(Fault::NotDurable(what));
            }
            match frame {
                Frame::Ping(_) | Frame::Pong(_) => {}
                Frame::Data(data) => {
                    self.spoken += 1;
                    let key = (who, data.epoch, data.channel, data.seq);
                    let id = *self.wire.entry(key).or_insert(data.id);
                    if id != data.id && self.rolls == [0, 0] {
                        self.fault(Fault::SeqUsedTwice);
                    }
                }
                _ => self.spoken += 1,
            }
        }
    }

    pub(super) fn deliver(
        &mut self,
        who: usize,
        generation: Generation,
        packet: Bytes,
    ) -> Option<Taken> {
        let direct = self
            .direct
            .as_ref()
            .is_some_and(|of| of[who].0 == generation);
        // Numbers that the relay has given to nothing else: acknowledging them changes nothing.
        let envelope = (!direct).then_some(EnvelopeId(u64::MAX));
        let now = self.now;
        let engine = self.peers[who].engine.as_mut()?;
        let taken = engine.receive(generation, envelope, packet, now);
        self.peers[who].pump();
        Some(taken)
    }

    pub(super) fn connect(&mut self, who: usize) {
        if self.connections[who].is_some() || !self.relay_up || self.peers[who].engine.is_none() {
            return;
        }
        let class = LinkClass::Relayed(self.store);
        let generation = self.peers[who].bind_where(class, self.reads[who], self.now);
        self.connections[who] = Some(Connection {
            generation,
            to: VecDeque::new(),
            from: VecDeque::new(),
            pushed: BTreeSet::new(),
            on_the_way: BTreeSet::new(),
        });
    }

    /// From now on this peer believes so of the other.
    pub(super) fn read(&mut self, who: usize, reads: Reads) {
        self.reads[who] = reads;
        if let Some(connection) = &self.connections[who]
            && let Some(engine) = &mut self.peers[who].engine
        {
            engine.peer_reads(connection.generation, reads, 0, self.now);
        }
        self.peers[who].pump();
    }

    pub(super) fn disconnect(&mut self, who: usize) {
        let Some(connection) = self.connections[who].take() else {
            return;
        };
        for message in connection.from {
            if let FromRelay::Deliver(_, packet) = message {
                self.retired.push((who, connection.generation, packet));
            }
        }
        self.unbind(who, connection.generation);
    }

    pub(super) fn unbind(&mut self, who: usize, generation: Generation) {
        let now = self.now;
        if let Some(engine) = &mut self.peers[who].engine {
            engine.unbind(generation, now);
        }
        self.peers[who].pump();
    }

    pub(super) fn relay_hears(&mut self, who: usize) {
        let Some(connection) = &mut self.connections[who] else {
            return;
        };
        match connection.to.pop_front() {
            Some(ToRelay::Mail(Mail::Acknowledge(EnvelopeId(number)))) => {
                connection.on_the_way.remove(&number);
                self.mailbox[who].retain(|envelope| envelope.number != number);
            }
            Some(ToRelay::Mail(Mail::Park(EnvelopeId(number)))) => {
                connection.on_the_way.remove(&number);
            }
            Some(ToRelay::Mail(Mail::Redeliver)) => {
                connection.pushed.clear();
                connection.on_the_way.clear();
            }
            Some(ToRelay::Submit(transmit)) => {
                if self.refusing && transmit.class == Class::Keep {
                    connection
                        .from
                        .push_back(FromRelay::Refused(transmit.envelope));
                    return;
                }
                connection
                    .from
                    .push_back(FromRelay::Accepted(transmit.envelope));
                let other = 1 - who;
                match transmit.class {
                    Class::NowOrNever => {
                        if let Some(connection) = &mut self.connections[other] {
                            connection
                                .from
                                .push_back(FromRelay::Deliver(None, transmit.packet));
                        }
                        return;
                    }
                    Class::NewestOnly => {
                        self.mailbox[other].retain(|e| e.class != Class::NewestOnly);
                    }
                    Class::Keep => {}
                }
                self.envelopes += 1;
                self.mailbox[other].push(Envelope {
                    number: self.envelopes,
                    class: transmit.class,
                    expires: transmit.expires,
                    packet: transmit.packet,
                });
            }
            None => {}
        }
    }

    pub(super) fn push(&mut self, who: usize) {
        let Some(connection) = &mut self.connections[who] else {
            return;
        };
        let now = self.now.store;
        self.mailbox[who].retain(|envelope| envelope.expires > now);
        if connection.on_the_way.len() >= self.inboxes.window() {
            return;
        }
        let next = self.mailbox[who]
            .iter()
            .find(|e| !connection.pushed.contains(&e.number));
        if let Some(envelope) = next {
            connection.pushed.insert(envelope.number);
            connection.on_the_way.insert(envelope.number);
            let number = Some(EnvelopeId(envelope.number));
            connection
                .from
                .push_back(FromRelay::Deliver(number, envelope.packet.clone()));
        }
    }

    pub(super) fn relay_speaks(&mut self, who: usize) {
        let Some(connection) = &mut self.connections[who] else {
            return;
        };
        let generation = connection.generation;
        let Some(message) = connection.from.pop_front() else {
            return;
        };
        let now = self.now;
        let Some(engine) = &mut self.peers[who].engine else {
            return;
        };
        match message {
            FromRelay::Accepted(envelope) => engine.accepted(generation, envelope, now),
            FromRelay::Refused(envelope) => {
                engine.refused(generation, envelope, Refusal::MailboxFull, now);
            }
            FromRelay::Deliver(envelope, packet) => {
                engine.receive(generation, envelope, packet, now);
            }
        }
        self.peers[who].pump();
    }

    pub(super) fn direct_packet(&mut self, who: usize) {
        let Some(direct) = &mut self.direct else {
            return;
        };
        let (generation, queue) = &mut direct[who];
        let Some(packet) = queue.pop_front() else {
            return;
        };
        let (generation, now) = (*generation, self.now);
        if let Some(engine) = &mut self.peers[who].engine {
            engine.receive(generation, None, packet, now);
        }
        self.peers[who].pump();
    }

    pub(super) fn link_up(&mut self) {
        if self.direct.is_some() || self.peers.iter().any(|peer| peer.engine.is_none()) {
            return;
        }
        let now = self.now;
        let generations = [0, 1].map(|who: usize| self.peers[who].bind(LinkClass::Direct, now));
        self.direct = Some(generations.map(|generation| (generation, VecDeque::new())));
    }

    pub(super) fn link_down(&mut self) {
        let Some(direct) = self.direct.take() else {
            return;
        };
        for (who, (generation, queue)) in direct.into_iter().enumerate() {
            self.retired
                .extend(queue.into_iter().map(|packet| (who, generation, packet)));
            self.unbind(who, generation);
        }
    }

    /// A packet of a retired link comes late.
    pub(super) fn stale(&mut self) {
        let Some((who, generation, packet)) = self.retired.pop() else {
            return;
        };
        let now = self.now;
        let Some(engine) = &mut self.peers[who].engine else {
            return;
        };
        let taken = engine.receive(generation, None, packet, now);
        self.peers[who].pump();
        if taken != Taken::No {
            self.fault(Fault::StaleLink);
        }
    }

    pub(super) fn relay_down(&mut self) {
        self.relay_up = false;
        self.disconnect(0);
        self.disconnect(1);
    }
}

/// What a frame states that the store of its sender does not hold (I4).
fn not_durable(peer: &Peer, frame: &Frame) -> Option<&'static str> {
    let (Frame::Ack(_) | Frame::Resume(_) | Frame::Data(_) | Frame::Skip(_)) = frame else {
        return None;
    };
    let record = peer.disk.get(&Key::Session(peer.other).to_bytes());
    let Some(session) = record.map(|record| Session::from_bytes(record).expect("own disk")) else {
        return Some("there is no session");
    };
    let holds = |epoch, received: &[Received]| {
        received.iter().all(|one| {
            let stream = session.stream(epoch);
            let rx = stream.and_then(|stream| stream.channels.get(&one.channel));
            rx.is_some_and(|rx| (rx.next, rx.digest) == (one.next, one.digest))
        })
    };
    let end = |channel| session.out.get(&channel).map(|out| out.seq(out.next));
    let stated = match frame {
        Frame::Ack(ack) => (holds(ack.epoch, &ack.received), "an Ack"),
        Frame::Resume(resume) => {
            let peer_epoch = resume.peer_epoch.unwrap_or(Epoch(0));
            let offers = |one: &Offered| end(one.channel).is_some_and(|end| one.end <= end);
            let holds = holds(peer_epoch, &resume.received);
            let ours = resume.epoch == session.epoch && resume.offered.iter().all(offers);
            (holds && ours, "a Resume")
        }
        Frame::Data(data) => {
            let ours = data.epoch == session.epoch;
            let there = end(data.channel).is_some_and(|end| data.seq < end);
            (ours && there, "a segment")
        }
        Frame::Skip(skip) => {
            let at = session
                .out
                .get(&skip.channel)
                .map(|out| out.position(skip.first));
            let key = at.map(|at| Key::Outbox(peer.other, skip.channel, at).to_bytes());
            let record = key.and_then(|key| peer.disk.get(&key));
            let record = record.map(|record| OutboxRecord::from_bytes(record).expect("own disk"));
            let ended = record.is_some_and(|record| record.state == OutboxState::Tombstone);
            (ended && skip.epoch == session.epoch, "a Skip")
        }
        _ => return None,
    };
    (!stated.0).then_some(stated.1)
}
