//! Opening what comes, before anything else looks at it.
//!
//! What opens and is not *fresh* may be recorded: only its segments and Skips count, which are taken
//! once whatever happens, and handshakes, which make keys for the two alone.

use bytes::Bytes;

use super::Engine;
use super::doubts::Doubt;
use super::event::{DropReason, Violation};
use super::overtaken::Sealed;
use super::packets::Sender;
use super::sealing::Responding;
use crate::limits::{FORGED_PACKETS, KEY_LIFE};
#[cfg(feature = "plain")]
use crate::seal::KIND_PLAIN;
#[cfg(feature = "plain")]
use crate::seal::PacketNumber;
use crate::seal::window::Window;
use crate::seal::{KIND_ONE_WAY, KIND_SEALED};
use crate::{Generation, OpenError};

/// Starts of the peer's process that are told apart in one-way packets.
const STARTS: usize = 8;

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

impl Engine {
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
            if !opened.left {
                self.sealing.doubts.refreshed();
            } else if self.sealing.doubts.is_behind(self.now.elapsed) {
                self.doubt_keys(generation, Doubt::Old);
            }
            if self.live.keys.sending == Some(opened.mine) {
                self.sealing.doubts.proved(self.now.elapsed);
                self.sealing.doubted = false;
                // Who has gone back to these takes what it begins for overtaken: new ones are needed.
                if !opened.left {
                    self.sealing.suspected = false;
                    if self.live.keys.proved() {
                        // Until that is written the initiation is said.
                        self.writes.touch();
                    }
                }
            }
            let uses = |of: &mut Responding| of.mine == opened.mine;
            self.sealing.responding.take_if(uses);
        } else if !opened.known_start {
            // A store that went back in time, or a recorded packet: fresh keys will tell.
            self.doubt_keys(generation, Doubt::Old);
        } else if !opened.left && self.sealing.doubts.is_behind(self.now.elapsed) {
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
        sender: Sender,
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
        if sender == Sender::Claimed {
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
            self.give_up_link(generation, DropReason::Violation(Violation::Open(error)));
        }
        false
    }
}
