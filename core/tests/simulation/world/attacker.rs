//! Who records packets, changes them, and says them again.

use bytes::Bytes;
use outlive_core::engine::Taken;
use outlive_core::seal::KIND_SEALED;
use outlive_core::{EnvelopeId, Generation};

use super::{Fault, SEALED_HEADER, World};

impl World {
    /// What a hostile relay notes of a packet, and what it must never see.
    pub(super) fn written_down(&mut self, who: usize, packet: &Bytes) {
        let kind = packet.first().copied().unwrap_or_default();
        if let Some(count) = self.kinds.get_mut(usize::from(kind)) {
            *count += 1;
        }
        if kind == KIND_SEALED && !self.headers.insert(packet.slice(..SEALED_HEADER)) {
            self.fault(Fault::NumberUsedTwice);
        }
        if self.recorded.len() < 200 {
            self.recorded.push((1 - who, packet.clone()));
        }
    }

    pub(super) fn recorded(&mut self, who: usize) -> Option<(Generation, Bytes)> {
        let direct = self.direct.as_ref().map(|direct| direct[who].0);
        let relayed = self.connections[who].as_ref().map(|of| of.generation);
        let generation = if self.random.chance(50) {
            direct.or(relayed)?
        } else {
            relayed.or(direct)?
        };
        if self.recorded.is_empty() {
            return None;
        }
        let which = self.random.below(self.recorded.len());
        let (to, packet) = self.recorded[which].clone();
        // One in five goes back to who sent it.
        (to == who || self.random.chance(20)).then_some((generation, packet))
    }

    /// A hostile relay delivers what it wrote down, again.
    pub(super) fn replay(&mut self, who: usize) {
        let Some((generation, packet)) = self.recorded(who) else {
            return;
        };
        self.log(|| format!("  replayed to {who}"));
        self.deliver(who, generation, packet);
    }

    /// It changes a byte of it, or cuts it.
    pub(super) fn tamper(&mut self, who: usize) {
        let Some((generation, packet)) = self.recorded(who) else {
            return;
        };
        let at = self.random.below(packet.len());
        let mut bytes = packet.to_vec();
        if self.random.chance(70) {
            bytes[at] ^= 1 << self.random.below(8);
        } else {
            bytes.truncate(at);
        }
        if self.deliver(who, generation, bytes.into()) == Some(Taken::Yes) {
            self.fault(Fault::GarbageTaken);
        }
    }

    pub(super) fn garbage(&mut self, who: usize) {
        let Some(connection) = &self.connections[who] else {
            return;
        };
        let generation = connection.generation;
        let length = self.random.below(64);
        let mut bytes: Vec<u8> = (0..length).map(|_| self.random.next() as u8).collect();
        if let Some(kind) = bytes.first_mut() {
            *kind %= 4;
        }
        let now = self.now;
        let Some(engine) = &mut self.peers[who].engine else {
            return;
        };
        let taken = engine.receive(generation, Some(EnvelopeId(u64::MAX)), bytes.into(), now);
        self.peers[who].pump();
        if taken != Taken::No {
            self.fault(Fault::GarbageTaken);
        }
    }
}
