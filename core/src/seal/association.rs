//! One set of keys that two peers have, and the phases of each direction.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::packet::{self, Header};
use super::secret::Secret;
use super::{Locator, OpenError, PacketNumber, Phase, StartId, noise};
use crate::WallTime;
use crate::limits::{KEY_LIFE, OLD_PHASES};

/// Phases a packet may be ahead of the last one heard. Each costs a hash, whoever sent the packet.
pub(super) const PHASES_AHEAD: u32 = 512;

/// Keys that both peers have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Association {
    /// The peer's packets name them so.
    pub mine: Locator,
    /// Our packets name them so.
    pub theirs: Locator,
    /// When they were made; from their first use on, when that was.
    pub born: WallTime,
    /// When others took their place.
    pub superseded: Option<WallTime>,
    /// What we seal under.
    pub send: Chain,
    /// What the peer seals under.
    pub receive: Chain,
    /// Earlier phases of the peer.
    pub old: Vec<OldPhase>,
    /// The highest number that came.
    pub newest: PacketNumber,
    /// The last starts of the peer's process that were heard of.
    pub starts: Vec<StartId>,
    /// The response, until the peer has used the keys.
    pub answer: Option<Answer>,
}

/// The secret that the keys of a direction come from. Goes forward only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The present phase.
    pub phase: Phase,
    /// The secret at it.
    pub secret: Secret,
    /// The first packet number of it (of our own direction).
    pub first: PacketNumber,
    /// When it began.
    pub since: WallTime,
}

/// A phase that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldPhase {
    /// Its number.
    pub phase: Phase,
    /// Its secret: opens its packets, leads to no other phase.
    pub secret: Secret,
    /// How long packets of it may still come.
    pub until: WallTime,
}

/// What we answered to an initiation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The hash of the initiation: heard again, it is answered with the same.
    pub to: [u8; 32],
    /// The response.
    pub response: Bytes,
}

impl Chain {
    const fn new(secret: Secret, since: WallTime) -> Self {
        Self {
            phase: Phase(0),
            secret,
            first: PacketNumber(0),
            since,
        }
    }

    pub(super) fn next(&self, first: PacketNumber, since: WallTime) -> Self {
        Self {
            phase: Phase(self.phase.0.saturating_add(1)),
            secret: packet::next_chain(&self.secret),
            first,
            since,
        }
    }
}

impl Association {
    pub(super) fn new(
        mine: Locator,
        shared: noise::Shared,
        now: WallTime,
        answer: Option<Answer>,
    ) -> Self {
        Self {
            mine,
            theirs: shared.theirs,
            born: now,
            superseded: None,
            send: Chain::new(shared.send, now),
            receive: Chain::new(shared.receive, now),
            old: Vec::new(),
            newest: PacketNumber(0),
            starts: Vec::new(),
            answer,
        }
    }

    /// Whether others are to take their place. If they seem to be made that much later than `now`, the
    /// clock went back: how old they are is not known.
    pub(crate) fn is_old(&self, age: Duration, now: WallTime) -> bool {
        self.born.plus(age) <= now || now.plus(age) <= self.born
    }

    /// Seals the frames of our packet with this number, which is used for no other.
    ///
    /// # Errors
    /// [`SealError`](super::SealError) if they are more than a packet holds.
    pub fn seal(
        &self,
        start: StartId,
        number: PacketNumber,
        frames: &[u8],
    ) -> Result<Bytes, super::SealError> {
        let header = Header {
            locator: self.theirs,
            phase: self.send.phase,
            start,
            number,
        };
        let phase = packet::phase_secret(&self.send.secret);
        packet::seal(&packet::packet_key(&phase, start), header, frames)
    }

    /// Whether the peer is known to have sealed under these keys before it sealed this packet under others:
    /// one start of its process numbers all its packets in a row.
    pub(super) fn precedes(&self, header: Header) -> bool {
        self.starts.contains(&header.start) && header.number > self.newest
    }

    pub(super) fn open(
        &mut self,
        header: Header,
        body: &[u8],
        now: WallTime,
    ) -> Result<Bytes, OpenError> {
        let under =
            |phase: &Secret| packet::open(&packet::packet_key(phase, header.start), header, body);
        if header.phase < self.receive.phase {
            let old = self.old.iter().find(|old| old.phase == header.phase);
            return under(&old.ok_or(OpenError::UnknownKeys)?.secret);
        }
        if header.phase.0 - self.receive.phase.0 > PHASES_AHEAD {
            return Err(OpenError::UnknownKeys);
        }
        let mut chain = self.receive.clone();
        let mut passed = Vec::new();
        while chain.phase < header.phase {
            passed.push(OldPhase {
                phase: chain.phase,
                secret: packet::phase_secret(&chain.secret),
                until: now.plus(KEY_LIFE),
            });
            chain = chain.next(PacketNumber(0), now);
        }
        let frames = under(&packet::phase_secret(&chain.secret))?;
        self.receive = chain;
        self.old.append(&mut passed);
        self.old.retain(|old| old.until > now);
        let surplus = self.old.len().saturating_sub(OLD_PHASES);
        self.old.drain(..surplus);
        Ok(frames)
    }
}
