//! What the apps at both ends do, and what they have to get.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::{Engine, External, SendOptions, Ticket};
use outlive_core::link::Reads;
use outlive_core::record::Extent;
use outlive_core::{ChannelId, MessageId, Position, TransferId};

use super::{CHANNELS, Fault, Message, ToRelay, World, number, payload, transfer};
use crate::peer::Handed;

impl World {
    /// Moves what the engines sent onto the wires, and notes what they told their apps.
    pub(super) fn collect(&mut self) {
        let mut wasted = false;
        for who in 0..2 {
            let engine = self.peers[who].engine.as_ref();
            if let Some(what) = engine.and_then(Engine::overgrown) {
                self.fault(Fault::Overgrown(what));
            }
            while let Some((transmit, frames)) = self.peers[who].sent.pop_front() {
                self.spoke(who, &transmit, frames);
                if let Some(direct) = &mut self.direct
                    && direct[who].0 == transmit.generation
                {
                    direct[1 - who].1.push_back(transmit.packet);
                } else if let Some(connection) = &mut self.connections[who]
                    && connection.generation == transmit.generation
                {
                    wasted |= self.reads[who] == Reads::Never;
                    connection.to.push_back(ToRelay::Submit(transmit));
                }
            }
            while let Some((generation, mail)) = self.peers[who].mail.pop_front() {
                self.log(|| format!("  {who} -> {generation} {mail:?}"));
                if let Some(connection) = &mut self.connections[who]
                    && connection.generation == generation
                {
                    connection.to.push_back(ToRelay::Mail(mail));
                }
            }
            let queued = std::mem::take(&mut self.peers[who].queued);
            self.ok.extend(queued);
            let ended = std::mem::take(&mut self.peers[who].ended_ids);
            self.ended.extend(ended);
            for id in std::mem::take(&mut self.peers[who].expired_ids) {
                self.check_expired(id);
            }
            for (channel, below) in std::mem::take(&mut self.peers[who].consumed) {
                self.check_consumed(who, channel, below);
            }
        }
        if wasted {
            self.fault(Fault::Wasted);
        }
    }

    /// What is told as expired, has had its time: those for which none was set wait for longer than any
    /// story takes.
    fn check_expired(&mut self, id: MessageId) {
        let Some(&number) = self.names.get(&id) else {
            return;
        };
        let expires = self.messages.get(&number).and_then(|of| of.expires);
        if expires.is_none_or(|at| at > self.now.store) {
            self.fault(Fault::Hasty(number));
        }
    }

    /// What is told as consumed, the other's app has committed. One that lost what it had can't.
    fn check_consumed(&mut self, who: usize, channel: ChannelId, below: Position) {
        if self.rolls[1 - who] > 0 {
            return;
        }
        let committed = self.peers[1 - who].committed.iter();
        let committed: BTreeSet<u64> = committed
            .filter_map(|id| self.names.get(id))
            .copied()
            .collect();
        let missing = self.not_ended(|number| committed.contains(&number));
        // From the last to the first: where a store went back in time, positions are given twice.
        let mut taken = u64::MAX;
        let mut faults = Vec::new();
        for (number, message) in self.messages.iter().rev() {
            if message.from != who || message.channel != channel {
                continue;
            }
            let still = message.seqs.start < taken && message.seqs.end <= below.0;
            if still && missing.contains(number) {
                faults.push(Fault::Flattered(*number));
            }
            taken = taken.min(message.seqs.start);
        }
        for fault in faults {
            self.fault(fault);
        }
    }

    pub(super) fn send(&mut self, who: usize) {
        let channel = CHANNELS[self.random.below(2)];
        let number = self.next_number();
        let bytes = if self.random.chance(10) { 40_000 } else { 8 };
        let payload = payload(number, bytes);
        let ttl = self.random.chance(20).then(|| Duration::from_secs(15));
        if self.files && self.random.chance(50) {
            self.submit_of_file(who, channel, payload, ttl);
        } else {
            self.submit(who, channel, payload, ttl);
        }
    }

    /// Sends a message as [`submit`](Self::submit) does, of which all but the number is in a file.
    pub(super) fn submit_of_file(
        &mut self,
        who: usize,
        channel: ChannelId,
        payload: Bytes,
        ttl: Option<Duration>,
    ) {
        const BEFORE: usize = 100;
        const NUMBER: usize = 8;
        let number = self.next_number();
        let external = External {
            extent: Extent {
                transfer: transfer(number),
                offset: BEFORE as u64,
                length: (payload.len() - NUMBER) as u64,
            },
            beginning: payload.slice(..NUMBER),
        };
        let file = [&[0xee; BEFORE], &payload[NUMBER..]].concat();
        let options = SendOptions { ttl, once: None };
        let peer = &mut self.peers[who];
        let Some(engine) = &mut peer.engine else {
            return;
        };
        let taken = engine.send_external(channel, &external, &options, self.now);
        let ticket = taken.expect("room");
        peer.files.insert(external.extent.transfer, file.into());
        self.submitted(who, ticket, payload.len(), ttl);
    }

    /// A file that something was sent of. What is lost with it is what its owner took away.
    pub(super) fn some_file(&mut self, who: usize) -> Option<TransferId> {
        let files = &self.peers[who].files;
        let which = self.random.below(files.len().max(1));
        let transfer = *files.keys().nth(which)?;
        self.exempt.insert(number(transfer));
        Some(transfer)
    }

    pub(super) fn give_up(&mut self, who: usize) {
        let Some(transfer) = self.some_file(who) else {
            return;
        };
        let channel = self.messages[&number(transfer)].channel;
        let now = self.now;
        if let Some(engine) = &mut self.peers[who].engine {
            engine.give_up(channel, transfer, now);
        }
        self.peers[who].pump();
    }

    /// Sends a message that begins with the number which is the next.
    pub(crate) fn submit(
        &mut self,
        who: usize,
        channel: ChannelId,
        payload: Bytes,
        ttl: Option<Duration>,
    ) -> Option<(Ticket, u64)> {
        let options = SendOptions { ttl, once: None };
        let engine = self.peers[who].engine.as_mut()?;
        let ticket = engine
            .send(channel, &payload, &options, self.now)
            .expect("room");
        Some((ticket, self.submitted(who, ticket, payload.len(), ttl)))
    }

    pub(super) fn submitted(
        &mut self,
        who: usize,
        ticket: Ticket,
        bytes: usize,
        ttl: Option<Duration>,
    ) -> u64 {
        let (number, channel) = (self.next_number(), ticket.channel);
        let expires = ttl.map(|ttl| self.now.store.plus(ttl));
        let peer = &mut self.peers[who];
        peer.tickets.push((ticket, number));
        peer.pump();
        self.names.insert(ticket.id, number);
        let order = self.orders.entry((who, channel)).or_default();
        *order += 1;
        self.messages.insert(
            number,
            Message {
                from: who,
                channel,
                seqs: ticket.first.0..ticket.end.0,
                order: *order,
                bytes,
                expires,
            },
        );
        self.log(|| format!("  message {number} is {}", ticket.id));
        number
    }

    /// The number of the next message.
    pub(crate) fn next_number(&self) -> u64 {
        self.messages.len() as u64 + 1
    }

    pub(super) fn arrived(&mut self, who: usize, handed: &Handed) {
        let number = handed
            .payload
            .first_chunk()
            .map_or(0, |first| u64::from_le_bytes(*first));
        self.log(|| format!("  app {who} gets {number} attempt={}", handed.attempt));
        let Some(message) = self.messages.get(&number) else {
            return self.fault(Fault::Garbled(number));
        };
        let (order, bytes, from) = (message.order, message.bytes, message.from);
        if let Some(gap) = handed.record.gap
            && self.rolls == [0, 0]
            && gap.last.0 + 1 != message.seqs.start
        {
            return self.fault(Fault::FalseGap(number));
        }
        let signal = handed.channel == ChannelId::SIGNALING;
        if bytes != handed.payload.len()
            || (!signal && handed.payload != payload(number, bytes))
            || from == who
            || self.names.get(&handed.record.id) != Some(&number)
        {
            self.fault(Fault::Garbled(number));
        }
        if let (ChannelId::SIGNALING, Some(signaling)) = (handed.channel, &mut self.signaling) {
            signaling.arrived(who, &handed.payload);
        }
        self.from_files += u64::from(self.peers[from].files.contains_key(&transfer(number)));
        let roll = self.rolls[who];
        let times = self.delivered.entry((who, number)).or_default();
        let before = times.last().copied();
        times.push(roll);
        let name = (who, handed.record.id, handed.record.epoch, roll);
        let tried = self.attempts.insert(name, handed.attempt);
        if handed.attempt <= tried.unwrap_or(0) || handed.attempt > handed.most {
            self.faults.push(Fault::Miscounted(number));
        }
        match before {
            Some(last) if !handed.redelivered() && last == roll => {
                self.fault(Fault::Doubled(number));
            }
            Some(_) => {}
            None => {
                let last = self.last.entry((who, handed.channel)).or_default();
                let inverted = order < *last;
                *last = order.max(*last);
                if inverted && self.rolls == [0, 0] {
                    self.fault(Fault::Reordered(number));
                }
            }
        }
    }

    /// Messages that were Ok and neither arrived nor ended.
    pub(super) fn missing(&self) -> Vec<u64> {
        let to = |number| 1 - self.messages[&number].from;
        self.not_ended(|number| self.delivered.contains_key(&(to(number), number)))
    }

    /// Messages that were Ok and did not end, without those of which `done` is true.
    fn not_ended(&self, done: impl Fn(u64) -> bool) -> Vec<u64> {
        let ended: BTreeSet<u64> = self
            .ended
            .iter()
            .filter_map(|id| self.names.get(id))
            .copied()
            .collect();
        let is_missing = |number: &&u64| {
            let Some(message) = self.messages.get(number) else {
                return true;
            };
            // A crash may keep the word of an expiry from the app, which set the time.
            let expired = message.expires.is_some_and(|at| at <= self.now.store);
            !expired && !done(**number) && !self.exempt.contains(number) && !ended.contains(number)
        };
        self.ok.iter().filter(is_missing).copied().collect()
    }
}
