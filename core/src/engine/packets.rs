//! A packet comes in: it is opened, and its frames are taken one by one.

use bytes::Bytes;

use super::Engine;
use super::event::{DropReason, Event, Output, Violation};
use super::overtaken::Sealed;
use super::rules::Rule;
use super::writes::After;
use crate::wire::frame::{Frame, Handshake, Token};
use crate::wire::packet;
use crate::{EnvelopeId, Generation, Now};

/// What happened to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was taken, or was nothing new.
    Yes,
    /// There was no room for all of it in the inbox: it stays in the mailbox, where
    /// [`Output::Park`] leaves it until [`Output::Redeliver`] asks for it. What else was in it is
    /// taken.
    NoRoom,
    /// It came over a retired link, or broke the protocol. It changed nothing.
    No,
}

/// Whether it is known from whom a packet is, before it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// The link leads to the peer, or the relay says that the packet is the peer's.
    Known,
    /// Nobody but the packet says so.
    Claimed,
}

impl Engine {
    /// A packet came over a link; `envelope` is the relay's number for it, if it waits in a mailbox.
    pub fn receive(
        &mut self,
        generation: Generation,
        envelope: Option<EnvelopeId>,
        bytes: Bytes,
        now: Now,
    ) -> Taken {
        self.now = now;
        self.packet_came(generation, envelope, &bytes, Sender::Known)
    }

    /// The same for a packet that nobody but itself says to be from the peer: if it does not open,
    /// that is not held against the link.
    pub fn receive_claimed(
        &mut self,
        generation: Generation,
        envelope: Option<EnvelopeId>,
        bytes: Bytes,
        now: Now,
    ) -> Taken {
        self.now = now;
        self.packet_came(generation, envelope, &bytes, Sender::Claimed)
    }

    fn packet_came(
        &mut self,
        generation: Generation,
        envelope: Option<EnvelopeId>,
        bytes: &Bytes,
        sender: Sender,
    ) -> Taken {
        let now = self.now;
        if self.stopped {
            return Taken::No;
        }
        let known = self.links.get(generation).is_some();
        if !known && self.rules.keeps(Rule::Generations) {
            return Taken::No;
        }
        let opened = match self.open_packet(generation, bytes) {
            Ok(opened) => opened,
            Err(error) => {
                let kind = bytes.first().copied();
                if self.not_opened(generation, sender, kind, error) {
                    return self.violated(generation, envelope, Violation::Open(error));
                }
                return self.sealed_off(generation, envelope);
            }
        };
        let frames = match packet::decode(&opened.frames).map_err(Violation::from) {
            Ok(frames) => frames,
            Err(violation) => return self.violated(generation, envelope, violation),
        };
        if opened.fresh {
            if let Some(link) = self.links.get(generation) {
                link.pulse.heard(now.elapsed);
            }
            self.live.last_seen = Some(now.wall);
        }
        if opened.sealed.newest {
            self.crowded.heard();
        }
        let mut taken = Taken::Yes;
        let mut initiations = 0;
        let states = |frame: &Frame| matches!(frame, Frame::Resume(_) | Frame::Ack(_));
        let states = frames.iter().any(states);
        for frame in frames {
            if !opened.fresh && !frame.counts_late() {
                continue;
            }
            if opened.stale && !matches!(frame, Frame::Initiation(_) | Frame::Response(_)) {
                continue;
            }
            if let Frame::Initiation(Handshake { message }) = &frame {
                // Each costs several exchanges: one is enough for a packet.
                initiations += 1;
                if initiations == 1 {
                    self.on_initiation(generation, opened.sealed, message);
                }
                continue;
            }
            match self.frame(generation, opened.sealed, frame) {
                Ok(Taken::Yes) => {}
                Ok(other) => taken = other,
                Err(violation) => return self.violated(generation, envelope, violation),
            }
        }
        if opened.fresh && opened.sealed.keys.is_some() {
            if states && initiations == 0 {
                self.asks_for_no_keys();
            }
            self.replace_old_keys(generation);
        }
        match (taken, envelope) {
            (Taken::NoRoom, Some(envelope)) => self.park(generation, envelope),
            (_, Some(envelope)) => self.defer(After::Release {
                generation,
                envelope,
            }),
            (_, None) => {}
        }
        self.unpark();
        taken
    }

    fn frame(
        &mut self,
        generation: Generation,
        sealed: Sealed,
        frame: Frame,
    ) -> Result<Taken, Violation> {
        if !matches!(frame, Frame::Close(_)) {
            self.peer_closed = None;
        }
        match frame {
            Frame::Data(data) => return self.on_data(generation, data),
            Frame::Skip(skip) => return self.on_skip(generation, skip),
            Frame::Resume(resume) => self.on_resume(generation, sealed, resume)?,
            Frame::Ack(ack) => self.on_ack(generation, &ack),
            Frame::Volatile(volatile) => self.on_volatile(generation, volatile),
            Frame::Subscribe(list) => self.on_listening(&list.channels, true)?,
            Frame::Unsubscribe(list) => self.on_listening(&list.channels, false)?,
            Frame::Ping(Token(token)) => {
                if let Some(link) = self.links.get_or_best(generation) {
                    link.reply(Frame::Pong(Token(token)));
                }
            }
            Frame::Pong(Token(token)) => {
                let now = self.now.elapsed;
                if self.links.pong(generation, token, now) {
                    self.links.choose(now);
                }
            }
            Frame::PathChallenge(token) => {
                if let Some(link) = self.links.get(generation) {
                    link.reply(Frame::PathResponse(token));
                }
            }
            Frame::PathResponse(Token(token)) => {
                let now = self.now.elapsed;
                if self
                    .links
                    .get(generation)
                    .is_some_and(|link| link.answered(token, now))
                {
                    self.links.validated(generation, now);
                }
            }
            // Taken before: it counts once for each packet.
            Frame::Initiation(_) => {}
            Frame::Response(handshake) => self.on_response(generation, &handshake.message),
            Frame::Close(close) => {
                self.peer_listens.clear();
                let reason = close.reason;
                // Each packet that a peer does not accept is answered so.
                if self.peer_closed.replace(reason) != Some(reason) {
                    self.outputs
                        .push_back(Output::Event(Event::PeerClosed { reason }));
                }
            }
        }
        Ok(Taken::Yes)
    }

    /// A packet did not open: what was in it is sent again if it was the peer's.
    fn sealed_off(&mut self, generation: Generation, envelope: Option<EnvelopeId>) -> Taken {
        if let Some(envelope) = envelope {
            self.defer(After::Release {
                generation,
                envelope,
            });
        }
        Taken::No
    }

    /// A broken packet is let go of: delivered again it would be just as broken.
    fn violated(
        &mut self,
        generation: Generation,
        envelope: Option<EnvelopeId>,
        violation: Violation,
    ) -> Taken {
        // A relay forwards what others made: the fault is not its own.
        let direct = self.links.get(generation).is_some_and(|l| l.is_direct());
        if let Some(envelope) = envelope {
            self.defer(After::Release {
                generation,
                envelope,
            });
        } else if direct {
            self.give_up_link(generation, DropReason::Violation(violation));
        }
        Taken::No
    }
}
