//! The handshake that rides along with Resumes and Acks: when one is begun, said, answered and over.
//!
//! Keeps I4: it is said from the record in the store. An initiation that is the newest word of the
//! peer tells that it has no keys, or doubts them: packets to it are sealed by themselves until the
//! new ones are used. Not so one under shared keys: it only replaces those, for their age.

use super::Engine;
use super::doubts::Doubt;
use super::overtaken::Sealed;
use super::sealing::Responding;
use super::writes::After;
use crate::Generation;
use crate::limits::{ASSOCIATIONS, HANDSHAKE_AGAIN, KEY_AGE, KEY_AGE_LATER};
use crate::wire::frame::{Frame, Handshake};

impl Engine {
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
        if let Some(link) = self.links.get_or_best(generation)
            && link.initiated.is_none_or(|at| now >= at + HANDSHAKE_AGAIN)
        {
            link.keys_due = true;
        }
    }

    /// Begins a handshake if a packet is reason enough.
    pub(super) fn doubt_keys(&mut self, generation: Generation, doubt: Doubt) {
        let now = self.now.elapsed;
        self.sealing.suspected |= self.sealing.doubts.counts(doubt, now);
        let under_way = self.durable.keys.pending.is_some();
        if under_way || self.sealing.doubts.heed(doubt, now) {
            self.want_keys(generation);
        }
    }

    /// The peer has said how far it is, under shared keys, and no initiation with it: it has the response that
    /// was given, or will ask again. Messages tell nothing, which may have been on their way for long.
    pub(super) fn asks_for_no_keys(&mut self) {
        self.sealing.responding.take_if(|response| response.said);
    }

    /// Begins a handshake if the keys there are have served long enough. The peer has just used some, so
    /// it is there, or was lately: who has copied the keys of both reads on only until it answers.
    pub(super) fn replace_old_keys(&mut self, generation: Generation) {
        let age = if self.sealing.identity.peer_id() < self.peer {
            KEY_AGE
        } else {
            KEY_AGE_LATER
        };
        let wall = self.now.wall;
        let is_old = |age| {
            let sending = self.live.keys.sending();
            sending.is_some_and(|of| of.is_old(age, wall))
        };
        // If the peer has begun one, that is enough.
        let responding = self.sealing.responding;
        let answers = responding.is_some_and(|of| self.live.keys.offers(of.mine, wall));
        if !is_old(age) || answers {
            return;
        }
        // None is to push out keys that may open something still, as long as others are not much too old.
        let too_old = is_old(KEY_AGE * 2);
        self.live.keys.delete_old(wall);
        if self.live.keys.associations.len() < ASSOCIATIONS || too_old {
            self.want_keys(generation);
        }
    }

    /// Whether the handshake that is said takes the place of keys that both have.
    pub(super) fn only_replaces(&self) -> bool {
        let keys = &self.durable.keys;
        let ours = keys.pending.is_none() || keys.replaces();
        let theirs = self.sealing.responding.is_none_or(|of| of.shared);
        ours && theirs && !self.sealing.suspected
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
        if let Some(responding) = &mut self.sealing.responding
            && let Some(message) = keys.response(responding.mine)
        {
            responding.said = true;
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

    /// The peer begins a handshake. What is not the newest word of it may be recorded, or come from
    /// a clock that went back: it is answered, but not often, and makes no doubt.
    pub(super) fn on_initiation(&mut self, generation: Generation, sealed: Sealed, message: &[u8]) {
        let newest = sealed.newest;
        let shared = sealed.keys.is_some();
        let known = self.live.keys.answered(message).is_some();
        let now = self.now.elapsed;
        // What the peer has just used it has not lost.
        let waited = self.sealing.responding.is_some_and(|of| of.shared)
            && !self.sealing.doubts.counts(Doubt::UnknownKeys, now);
        if !newest && !known && (shared || waited) {
            // It was overtaken, or recorded. A new offer would take the place of one that is waited for.
            return;
        }
        if let Some(link) = self.links.get(generation)
            && (!newest || (shared && known))
        {
            let lately = link
                .responded
                .is_some_and(|at| now < at + HANDSHAKE_AGAIN / 2);
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
        self.sealing.responding = Some(Responding {
            mine,
            shared: shared && !sealed.left,
            said: false,
        });
        // Who is sure of our keys seals a handshake under them.
        self.sealing.doubted |= newest && !shared;
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
            self.sealing.suspected = false;
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
        match (self.links.get_or_best(generation), epoch) {
            (Some(link), Some(epoch)) => link.acks.owe(epoch, None),
            (Some(link), None) => link.resume_due = true,
            (None, Some(epoch)) => self.leave_unsaid(epoch, None),
            // With the Resume that the next link begins with.
            (None, None) => {}
        }
    }
}
