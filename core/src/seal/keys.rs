//! The keys of a session, as its record keeps them.
//!
//! ```text
//!            begin                 finish
//!   nothing ──────▶ Pending ─────────────────▶ Association, used at once
//!                      │ initiation   ▲ response
//!   peer:              ▼              │
//!   nothing ─────── respond ─▶ Association, offered ── a packet under it ──▶ used
//! ```
//!
//! A responder seals under new keys only when the initiator has: a response may never be heard. Keys
//! that others have taken the place of are kept as long as what was sealed under them may wait in a
//! mailbox; so are those of a phase.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::association::{Answer, Association};
use super::packet::Header;
use super::secret::Secret;
use super::{Locator, OpenError, PacketNumber, noise};
use crate::limits::{ASSOCIATIONS, KEY_AGE, KEY_LIFE, PHASE_PACKETS, PHASE_TIME};
use crate::{Entropy, Identity, PeerId, WallTime};

/// Starts of the peer's process that are remembered for each association.
const STARTS: usize = 8;

/// The keys of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Packet numbers up to here may have been used. Read after a restart, numbers go on behind it
    /// (I8).
    pub leased: PacketNumber,
    /// Keys agreed on, in the order in which they were, and the peer went over to them.
    pub associations: Vec<Association>,
    /// Which of them we seal under.
    pub sending: Option<Locator>,
    /// The handshake we have begun.
    pub pending: Option<Pending>,
    /// The highest number of a one-way packet that came.
    pub one_way: PacketNumber,
}

/// A handshake that waits for its response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// What its randomness is drawn from: the initiation is made anew whenever it is said.
    pub seed: Secret,
    /// Where its keys will be found.
    pub mine: Locator,
    /// When it began.
    pub began: WallTime,
}

/// A packet that opened under shared keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedPacket {
    /// The keys.
    pub mine: Locator,
    /// Its number.
    pub number: PacketNumber,
    /// The highest number before it.
    pub newest_before: PacketNumber,
    /// The frames.
    pub frames: Bytes,
    /// Whether the sender's process start was heard of before.
    pub known_start: bool,
    /// Whether it is the first under these keys.
    pub confirms: bool,
    /// Whether the peer had gone over to other keys when this came: it was sealed before that, or by
    /// a store that went back in time.
    pub left: bool,
}

impl Keys {
    /// Begins a handshake, unless one is under way. Returns whether it did.
    pub fn begin(&mut self, entropy: &mut Entropy, now: WallTime) -> bool {
        if self.pending.is_some() {
            return false;
        }
        self.pending = Some(Pending {
            seed: entropy.secret(),
            mine: entropy.locator(),
            began: now,
        });
        true
    }

    /// The initiation to say, if a handshake is under way.
    #[must_use]
    pub fn initiation(&self, identity: &Identity, peer: &PeerId) -> Option<Bytes> {
        let pending = self.pending.as_ref()?;
        noise::initiation(identity, peer, &pending.seed, pending.mine)
            .ok()
            .map(Bytes::from)
    }

    /// Answers an initiation. Returns where the keys are; the same initiation again has the same
    /// answer. `None` if it is no initiation of this peer.
    pub fn respond(
        &mut self,
        identity: &Identity,
        peer: &PeerId,
        initiation: &[u8],
        entropy: &mut Entropy,
        now: WallTime,
    ) -> Option<Locator> {
        if let Some(mine) = self.answered(initiation) {
            return Some(mine);
        }
        let to = *blake3::hash(initiation).as_bytes();
        let mine = entropy.locator();
        let (response, shared) =
            noise::respond(identity, peer, &entropy.secret(), mine, initiation).ok()?;
        let response = Bytes::from(response);
        self.add(Association::new(
            mine,
            shared,
            now,
            Some(Answer { to, response }),
        ));
        Some(mine)
    }

    /// Whether these keys were offered lately, and not used yet.
    pub(crate) fn offers(&self, mine: Locator, now: WallTime) -> bool {
        let of = self.associations.iter().find(|of| of.mine == mine);
        of.is_some_and(|of| of.answer.is_some() && !of.is_old(KEY_AGE, now))
    }

    /// The keys that were offered for this initiation and not used yet.
    pub(crate) fn answered(&self, initiation: &[u8]) -> Option<Locator> {
        let to = *blake3::hash(initiation).as_bytes();
        let answers = |of: &&Association| of.answer.as_ref().is_some_and(|answer| answer.to == to);
        self.associations.iter().find(answers).map(|of| of.mine)
    }

    /// The response that goes with these keys, while the peer has not used them.
    #[must_use]
    pub fn response(&self, mine: Locator) -> Option<Bytes> {
        let of = self.associations.iter().find(|of| of.mine == mine)?;
        of.answer.as_ref().map(|answer| answer.response.clone())
    }

    /// Takes the response to our initiation. Returns whether there are new keys; one that answers
    /// an earlier initiation makes none.
    pub fn finish(
        &mut self,
        identity: &Identity,
        peer: &PeerId,
        response: &[u8],
        now: WallTime,
    ) -> bool {
        let Some(Pending { seed, mine, .. }) = &self.pending else {
            return false;
        };
        let mine = *mine;
        let Ok(shared) = noise::finish(identity, peer, seed, mine, response) else {
            return false;
        };
        self.add(Association::new(mine, shared, now, None));
        self.pending = None;
        self.send_under(mine, now);
        true
    }

    /// The peer has shown that it has the keys we seal under: no handshake is needed, but one that
    /// replaces them for their age. Returns whether one ends by that.
    pub(crate) fn proved(&mut self) -> bool {
        !self.replaces() && self.pending.take().is_some()
    }

    /// Whether a handshake is under way that began when the keys we seal under were old.
    pub(crate) fn replaces(&self) -> bool {
        let of = self.sending().zip(self.pending.as_ref());
        of.is_some_and(|(keys, pending)| keys.is_old(KEY_AGE, pending.began))
    }

    /// Deletes what nothing that is sealed under it can wait for any more. Returns whether there was
    /// something.
    pub(crate) fn delete_old(&mut self, now: WallTime) -> bool {
        let before = self.secrets();
        let over = |of: &Association| {
            let offered = of.answer.is_some().then_some(of.born);
            let since = of.superseded.or(offered);
            since.is_some_and(|at| at.plus(KEY_LIFE) <= now)
        };
        self.associations.retain(|of| !over(of));
        for of in &mut self.associations {
            of.old.retain(|old| old.until > now);
        }
        self.secrets() < before
    }

    fn secrets(&self) -> usize {
        let each = self.associations.iter().map(|of| 1 + of.old.len());
        each.sum()
    }

    fn add(&mut self, new: Association) {
        self.delete_old(new.born);
        let sending = self.sending;
        if new.answer.is_some() {
            // One offer at a time: old initiations, fed again, push no keys out that are in use.
            self.associations.retain(|of| of.answer.is_none());
        }
        while self.associations.len() >= ASSOCIATIONS {
            let oldest = self
                .associations
                .iter()
                .position(|of| Some(of.mine) != sending)
                .unwrap_or_default();
            self.associations.remove(oldest);
        }
        self.associations.push(new);
    }

    fn send_under(&mut self, mine: Locator, now: WallTime) {
        for of in &mut self.associations {
            if Some(of.mine) == self.sending && of.mine != mine {
                // They are no older than that, whatever the clock says now.
                of.superseded = Some(now.max(of.born));
                // Nothing is sealed under it again.
                of.send.secret = Secret::new([0; 32]);
            }
            if of.mine == mine {
                of.superseded = None;
            }
        }
        self.sending = Some(mine);
    }

    /// The keys we seal under.
    #[must_use]
    pub fn sending(&self) -> Option<&Association> {
        let mine = self.sending?;
        self.associations.iter().find(|of| of.mine == mine)
    }

    /// Goes on to the next phase of sending if this one is used up. Returns whether it did.
    pub(crate) fn next_phase(&mut self, number: PacketNumber, now: WallTime) -> bool {
        let Some(mine) = self.sending else {
            return false;
        };
        let Some(of) = self.associations.iter_mut().find(|of| of.mine == mine) else {
            return false;
        };
        if of.send.first.0 == 0 {
            of.send.first = number;
        }
        let used = number.0.saturating_sub(of.send.first.0) >= PHASE_PACKETS;
        if used || of.send.since.plus(PHASE_TIME) <= now {
            of.send = of.send.next(number, now);
            return true;
        }
        false
    }

    /// Opens a packet (with its kind byte) under the keys that its header names.
    ///
    /// # Errors
    /// [`OpenError`] if it does not open; nothing changes then.
    pub fn open(&mut self, packet: &Bytes, now: WallTime) -> Result<OpenedPacket, OpenError> {
        let (header, body) = Header::split(packet)?;
        let mut known = self.associations.iter();
        let at = known.position(|of| of.mine == header.locator);
        let at = at.ok_or(OpenError::UnknownKeys)?;
        let used_later = self.used_later(at);
        let left = used_later.clone().any(|(_, of)| !of.precedes(header));
        let last_used = used_later.last().map(|(at, _)| at);
        let of = self.associations.get_mut(at);
        let of = of.ok_or(OpenError::UnknownKeys)?;
        let frames = of.open(header, body, now)?;
        let known_start = of.starts.contains(&header.start);
        if !known_start && header.number > of.newest {
            if of.starts.len() >= STARTS {
                of.starts.remove(0);
            }
            of.starts.push(header.start);
        }
        let newest_before = of.newest;
        if header.number > of.newest
            && let Some(superseded) = &mut of.superseded
        {
            // After two handshakes at once the peer may seal under these for as long as it likes.
            *superseded = now.max(of.born);
        }
        of.newest = of.newest.max(header.number);
        let confirms = of.answer.take().is_some();
        if confirms {
            // What we began before they were made is answered by this.
            self.pending.take_if(|pending| pending.began <= of.born);
            // They may have waited long for their first use. Their age counts from then on, or two who take
            // turns would find them old at once, and go on so for ever.
            of.born = now;
            self.send_under(header.locator, now);
        }
        if let Some(last_used) = last_used
            && !left
        {
            let of = self.associations.remove(at);
            self.associations.insert(last_used, of);
        }
        Ok(OpenedPacket {
            mine: header.locator,
            number: header.number,
            newest_before,
            frames,
            known_start,
            confirms,
            left,
        })
    }

    /// The keys behind those at `at` that the peer has used.
    fn used_later(&self, at: usize) -> impl Iterator<Item = (usize, &Association)> + Clone {
        let later = self.associations.iter().enumerate().skip(at + 1);
        later.filter(|(_, of)| of.newest > PacketNumber(0))
    }
}

const _: () = assert!(KEY_LIFE.as_secs() > crate::limits::MESSAGE_TTL.as_secs());

// Keys that are replaced for their age push out none that may still open something.
const _: () = assert!(KEY_AGE.as_secs() * (ASSOCIATIONS as u64 - 1) >= KEY_LIFE.as_secs());

#[cfg(test)]
mod tests;
