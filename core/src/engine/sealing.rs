//! Sealing, as the engine uses it: which keys a packet goes under, what came in, and the handshake
//! that rides along with Resumes and Acks.
//!
//! Keeps I8: a packet number is used only while the lease on disk covers it. Keeps I4: keys and
//! phases are sealed under, and said, only when the store holds them.
//!
//! What opens and is not *fresh* may be recorded: only its segments and Skips count, which are taken
//! once whatever happens, and handshakes, which make keys for the two alone. An initiation that is
//! the newest word of the peer tells that it has no keys, or doubts them: packets to it are sealed by
//! themselves until the new ones are used.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::Engine;
use super::doubts::{Doubt, Doubts};
use super::event::{DropReason, Output, Violation};
use super::overtaken::Sealed;
use super::rules::Rule;
use super::writes::After;
use crate::limits::{FORGED_PACKETS, HANDSHAKE_AGAIN, KEY_LIFE, NUMBER_LEASE};
#[cfg(feature = "plain")]
use crate::seal::KIND_PLAIN;
use crate::seal::window::Window;
use crate::seal::{KIND_ONE_WAY, KIND_SEALED, Keys, Locator, OneWay, PacketNumber, StartId};
use crate::wire::frame::{Frame, Handshake};
use crate::{Entropy, Generation, Identity, OpenError};

/// What of sealing is in memory.
pub(super) struct Sealing {
    pub(super) identity: Identity,
    start: StartId,
    one_way: OneWay,
    one_way_seen: Window,
    one_way_starts: VecDeque<StartId>,
    seen: BTreeMap<Locator, Window>,
    next: PacketNumber,
    doubts: Doubts,
    /// The peer may have lost the keys we seal under.
    doubted: bool,
    /// The peer is waiting for us to use the keys it offered: the next packet does, doubt or not.
    confirming: bool,
    /// Keys whose response is said until the peer uses them.
    responding: Option<Locator>,
    /// How the peer's last Resume since this start was sealed.
    pub(super) last_resume: Option<Sealed>,
    #[cfg(feature = "plain")]
    pub(super) plain: bool,
    /// Whether what is not sealed counts as older than what came before.
    #[cfg(feature = "plain")]
    pub(super) late: bool,
    #[cfg(feature = "plain")]
    pub(super) said: Option<VecDeque<Vec<u8>>>,
}

/// Starts of the peer's process that are told apart in one-way packets.
const STARTS: usize = 8;

/// How the next packet is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    #[cfg(feature = "plain")]
    Plain,
    OneWay,
    Shared,
}

/// A packet that opened.
pub(super) struct Opened {
    pub(super) frames: Bytes,
    /// Whether it is certain that it was never seen before.
    pub(super) fresh: bool,
    pub(super) sealed: Sealed,
    /// Whether it is older than anything that may still wait somewhere: a recording, or a clock that
    /// is wrong. A handshake tells which.
    pub(super) stale: bool,
}

impl Sealing {
    pub(super) fn new(identity: &Identity, keys: &Keys, entropy: &mut Entropy) -> Self {
        let start = entropy.start();
        let offered = keys.associations.iter().rfind(|of| of.answer.is_some());
        Self {
            identity: identity.clone(),
            start,
            one_way: OneWay::new(start),
            one_way_seen: Window::after(keys.one_way),
            one_way_starts: VecDeque::new(),
            seen: BTreeMap::new(),
            next: keys.leased,
            doubts: Doubts::default(),
            doubted: false,
            confirming: false,
            responding: offered.map(|of| of.mine),
            last_resume: None,
            #[cfg(feature = "plain")]
            plain: false,
            #[cfg(feature = "plain")]
            late: false,
            #[cfg(feature = "plain")]
            said: None,
        }
    }
}

impl Engine {
    fn mode(&self) -> Mode {
        #[cfg(feature = "plain")]
        if self.sealing.plain {
            return Mode::Plain;
        }
        let sure = !self.sealing.doubted || self.sealing.confirming;
        if sure && self.durable.keys.sending().is_some() {
            Mode::Shared
        } else {
            Mode::OneWay
        }
    }

    /// Whether a packet can be sealed now. If not, the store is asked for what is missing.
    pub(super) fn can_seal(&mut self) -> bool {
        if self.mode() != Mode::Shared {
            return true;
        }
        self.lease();
        let covered = self.sealing.next < self.durable.keys.leased;
        if !covered {
            self.writes.touch();
        }
        covered
    }

    /// Takes more packet numbers when half of them are used. Written with whatever is written next:
    /// the other half lasts until then.
    fn lease(&mut self) {
        let next = self.sealing.next.0;
        if self.live.keys.leased.0 < next.saturating_add(NUMBER_LEASE / 2) {
            self.live.keys.leased = PacketNumber(next.saturating_add(NUMBER_LEASE));
        }
    }

    /// Seals the frames of one packet. Called when [`can_seal`](Self::can_seal) said yes.
    ///
    /// What holds a handshake is sealed by itself: who needs one may have no key that we have.
    pub(super) fn seal(
        &mut self,
        generation: Generation,
        frames: &[u8],
        handshake: bool,
    ) -> Option<Bytes> {
        #[cfg(feature = "plain")]
        if let Some(said) = &mut self.sealing.said {
            said.push_back(frames.to_vec());
        }
        let mode = match self.mode() {
            Mode::Shared if handshake && self.rules.keeps(Rule::HandshakeByItself) => Mode::OneWay,
            mode => mode,
        };
        match mode {
            #[cfg(feature = "plain")]
            Mode::Plain => Some([&[KIND_PLAIN], frames].concat().into()),
            Mode::OneWay => {
                let made = self.live.keys.sending.is_some() && !self.sealing.doubted;
                if !made && !handshake && self.sealing.responding.is_none() {
                    self.want_keys(generation);
                }
                let (identity, peer) = (&self.sealing.identity, &self.peer);
                let entropy = &mut self.entropy;
                self.sealing
                    .one_way
                    .seal(identity, peer, frames, entropy, self.now.wall)
                    .ok()
            }
            Mode::Shared => {
                self.sealing.confirming = false;
                let number = PacketNumber(self.sealing.next.0.saturating_add(1));
                self.sealing.next = number;
                if self.live.keys.next_phase(number, self.now.wall) {
                    let at = self.now.elapsed + super::timers::LAZY_WRITE;
                    self.write_lazily.get_or_insert(at);
                }
                let start = if self.rules.keeps(Rule::MixStart) {
                    self.sealing.start
                } else {
                    StartId([0; 8])
                };
                let keys = self.durable.keys.sending()?;
                keys.seal(start, number, frames).ok()
            }
        }
    }

    /// Begins a handshake for a session that has no keys, unless the peer has begun one.
    pub(super) fn begin_handshake(&mut self) {
        if self.sealing.responding.is_none()
            && self.live.keys.begin(&mut self.entropy, self.now.wall)
        {
            for link in self.links.iter_mut() {
                link.keys_due = true;
            }
        }
    }

    /// Begins a handshake if none is under way, and says its initiation on this link: at once, or
    /// with what is said next if it was said a moment ago.
    pub(super) fn want_keys(&mut self, generation: Generation) {
        if self.live.keys.begin(&mut self.entropy, self.now.wall) {
            self.writes.touch();
        }
        let now = self.now.elapsed;
        if let Some(link) = self.links.get(generation)
            && link.initiated.is_none_or(|at| now >= at + HANDSHAKE_AGAIN)
        {
            link.keys_due = true;
        }
    }

    /// Begins a handshake if a packet is reason enough.
    fn doubt_keys(&mut self, generation: Generation, doubt: Doubt) {
        let under_way = self.durable.keys.pending.is_some();
        if under_way || self.sealing.doubts.heed(doubt, self.now.elapsed) {
            self.want_keys(generation);
        }
    }

    /// The handshake's frames, for a packet of Resumes and Acks: in a mailbox the newest of these
    /// takes the place of the one before, so each carries them.
    pub(super) fn handshake_frames(&mut self, generation: Generation) -> Vec<Frame> {
        let keys = &self.durable.keys;
        let mut frames = Vec::new();
        if self.sealing.confirming && keys.sending().is_some() {
            // A handshake is sealed by itself, and what confirms keys is sealed under them.
            return frames;
        }
        if let Some(message) = keys.initiation(&self.sealing.identity, &self.peer) {
            frames.push(Frame::Initiation(Handshake { message }));
        }
        let response = self.sealing.responding.and_then(|mine| keys.response(mine));
        if let Some(message) = response {
            frames.push(Frame::Response(Handshake { message }));
        }
        let now = self.now.elapsed;
        if let Some(link) = self.links.get(generation)
            && !frames.is_empty()
        {
            link.keys_due = false;
            link.initiated = Some(now);
        }
        frames
    }

    /// Whether the handshake alone is reason enough to say something on a link.
    pub(super) fn handshake_due(&mut self, generation: Generation) -> bool {
        self.is_shaking_hands() && self.links.get(generation).is_some_and(|link| link.keys_due)
    }

    /// Whether there is a handshake to say.
    pub(super) const fn is_shaking_hands(&self) -> bool {
        self.durable.keys.pending.is_some() || self.sealing.responding.is_some()
    }

    pub(super) fn open_packet(
        &mut self,
        generation: Generation,
        packet: &Bytes,
    ) -> Result<Opened, OpenError> {
        match packet.first() {
            None => Err(OpenError::Empty),
            #[cfg(feature = "plain")]
            Some(&KIND_PLAIN) if self.sealing.plain => Ok(Opened {
                frames: packet.slice(1..),
                fresh: true,
                sealed: Sealed {
                    keys: None,
                    number: PacketNumber(0),
                    newest: !self.sealing.late,
                    left: self.sealing.late,
                },
                stale: false,
            }),
            Some(&KIND_SEALED) => self.open_shared(generation, packet),
            Some(&KIND_ONE_WAY) => self.open_one_way(generation, packet),
            Some(&kind) => Err(OpenError::Kind(kind)),
        }
    }

    fn open_shared(&mut self, generation: Generation, packet: &Bytes) -> Result<Opened, OpenError> {
        let opened = self.live.keys.open(packet, self.now.wall)?;
        let seen = self
            .sealing
            .seen
            .entry(opened.mine)
            .or_insert_with(|| Window::after(opened.newest_before));
        let fresh = seen.note(opened.number);
        if opened.confirms {
            self.lease();
            self.writes.touch();
        }
        if fresh {
            if self.live.keys.sending == Some(opened.mine) {
                self.sealing.doubts.proved(self.now.elapsed);
                self.sealing.doubted = false;
                // The peer has these keys: nothing is to be agreed on.
                self.live.keys.pending = None;
            }
            // The peer seals under shared keys: it needs no response any more, or asks again.
            self.sealing.responding = None;
        } else if !opened.known_start {
            // A store that went back in time, or a recorded packet: fresh keys will tell.
            self.doubt_keys(generation, Doubt::Old);
        }
        self.forget_windows();
        Ok(Opened {
            frames: opened.frames,
            fresh,
            sealed: Sealed {
                keys: Some(opened.mine),
                number: opened.number,
                newest: opened.number > opened.newest_before && !opened.left,
                left: opened.left,
            },
            stale: false,
        })
    }

    fn open_one_way(
        &mut self,
        generation: Generation,
        packet: &Bytes,
    ) -> Result<Opened, OpenError> {
        let opened = crate::seal::open_one_way(&self.sealing.identity, &self.peer, packet)?;
        let fresh = self.sealing.one_way_seen.note(opened.number);
        // A process that has sealed under our keys has them: what it says of lost ones is an old word
        // that was held back.
        let sending = self.live.keys.sending();
        let has_keys = sending.is_some_and(|of| of.starts.contains(&opened.start));
        let newest = !has_keys && opened.number > self.live.keys.one_way;
        self.live.keys.one_way = self.live.keys.one_way.max(opened.number);
        let starts = &mut self.sealing.one_way_starts;
        let known = starts.contains(&opened.start);
        if fresh && !known {
            if starts.len() >= STARTS {
                starts.pop_front();
            }
            starts.push_back(opened.start);
        } else if !fresh && !known {
            // A clock that went back, or a recorded packet: fresh keys will tell.
            self.doubt_keys(generation, Doubt::Old);
        }
        Ok(Opened {
            stale: opened.sealed_at().plus(KEY_LIFE) < self.now.wall,
            frames: opened.frames,
            fresh,
            sealed: Sealed {
                keys: None,
                number: opened.number,
                newest,
                left: false,
            },
        })
    }

    fn forget_windows(&mut self) {
        if self.sealing.seen.len() > self.live.keys.associations.len() {
            let kept = &self.live.keys.associations;
            self.sealing
                .seen
                .retain(|mine, _| kept.iter().any(|of| of.mine == *mine));
        }
    }

    /// A packet of this kind did not open. Whether that is held against the link.
    ///
    /// A store that went back in time may have had its initiation answered before, and then both ends
    /// have other keys under one name: what names keys of ours and does not open puts them in doubt as
    /// well.
    pub(super) fn not_opened(
        &mut self,
        generation: Generation,
        kind: Option<u8>,
        error: OpenError,
    ) -> bool {
        if error == OpenError::Forged && kind == Some(KIND_SEALED) {
            self.doubt_keys(generation, Doubt::UnknownKeys);
        }
        if error == OpenError::UnknownKeys {
            // One of both has lost keys, or it is junk: new ones are agreed on, and what was in the
            // packet is sent again.
            self.doubt_keys(generation, Doubt::UnknownKeys);
            return false;
        }
        if self.claimed {
            return false;
        }
        let Some(link) = self.links.get(generation) else {
            return false;
        };
        link.forged = link.forged.saturating_add(1);
        if link.is_direct() {
            return true;
        }
        if link.forged >= FORGED_PACKETS {
            self.links.unbind(generation, self.now.elapsed);
            let reason = DropReason::Violation(Violation::Open(error));
            self.outputs.push_back(Output::Drop { generation, reason });
        }
        false
    }

    /// The peer begins a handshake. What is not the newest word of it may be recorded, or come from
    /// a clock that went back: it is answered, but not often, and makes no doubt.
    pub(super) fn on_initiation(&mut self, generation: Generation, newest: bool, message: &[u8]) {
        let now = self.now.elapsed;
        if let Some(link) = self.links.get(generation)
            && !newest
        {
            let lately = link.responded.is_some_and(|at| now < at + HANDSHAKE_AGAIN);
            if lately {
                return;
            }
            link.responded = Some(now);
        }
        let (identity, peer) = (&self.sealing.identity, &self.peer);
        let mine =
            self.live
                .keys
                .respond(identity, peer, message, &mut self.entropy, self.now.wall);
        let Some(mine) = mine else { return };
        self.sealing.responding = Some(mine);
        // Who is sure of our keys begins no handshake.
        self.sealing.doubted |= newest;
        self.writes.touch();
        self.defer(After::Keys { generation });
    }

    pub(super) fn on_response(&mut self, generation: Generation, message: &[u8]) {
        let (identity, peer) = (&self.sealing.identity, &self.peer);
        if self
            .live
            .keys
            .finish(identity, peer, message, self.now.wall)
        {
            self.sealing.doubted = false;
            self.lease();
            self.writes.touch();
            self.defer(After::Confirm { generation });
        } else if self.live.keys.pending.is_none() && self.live.keys.sending.is_some() {
            // The peer says it again: that we use the keys did not reach it.
            self.defer(After::Confirm { generation });
        }
    }

    /// New keys are durable: the first packet under them tells the peer.
    pub(super) fn confirm_keys(&mut self, generation: Generation) {
        self.sealing.confirming = true;
        let epoch = self.live.peer_epoch;
        let Some(link) = self.links.get_or_best(generation) else {
            return;
        };
        match epoch {
            Some(epoch) => link.acks.owe(epoch, None),
            None => link.resume_due = true,
        }
    }
}
