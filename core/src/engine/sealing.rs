//! Sealing what leaves: under which keys a packet goes, and with which number.
//!
//! Keeps I8: a packet number is used only while the lease on disk covers it. Keeps I4: keys and
//! phases are sealed under only when the store holds them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::Engine;
use super::doubts::Doubts;
use super::overtaken::Sealed;
use super::rules::Rule;
use crate::limits::{KEY_AGE, NUMBER_LEASE};
#[cfg(feature = "plain")]
use crate::seal::KIND_PLAIN;
use crate::seal::window::Window;
use crate::seal::{Keys, Locator, OneWay, PacketNumber, StartId};
use crate::{Entropy, Generation, Identity, Padding};

/// What of sealing is in memory.
pub(super) struct Sealing {
    pub(super) identity: Identity,
    start: StartId,
    one_way: OneWay,
    pub(super) one_way_seen: Window,
    pub(super) one_way_starts: VecDeque<StartId>,
    pub(super) seen: BTreeMap<Locator, Window>,
    next: PacketNumber,
    pub(super) doubts: Doubts,
    /// The peer may have lost the keys we seal under.
    pub(super) doubted: bool,
    /// A packet has shown that one of the two may have lost the keys we seal under, and none has shown
    /// since that the peer has them.
    pub(super) suspected: bool,
    /// The peer is waiting for us to use the keys it offered: the next packet does, doubt or not.
    pub(super) confirming: bool,
    /// Keys whose response is said until the peer uses them.
    pub(super) responding: Option<Responding>,
    padding: Padding,
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

/// A response that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Responding {
    /// The keys that it makes.
    pub(super) mine: Locator,
    /// Whether the peer has asked under the keys that it uses: it has those that there are.
    pub(super) shared: bool,
    /// Whether it was said since it was asked for, or since this start: at least once it is, whatever comes
    /// meanwhile.
    pub(super) said: bool,
}

/// How the next packet is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    #[cfg(feature = "plain")]
    Plain,
    OneWay,
    Shared,
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
            suspected: false,
            confirming: false,
            responding: offered.map(|of| Responding {
                mine: of.mine,
                // If keys were old when it came, it was to replace them.
                shared: keys
                    .sending()
                    .is_some_and(|used| used.is_old(KEY_AGE, of.born)),
                said: false,
            }),
            padding: Padding::default(),
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

    /// Sets which packets are made longer from now on.
    pub const fn set_padding(&mut self, padding: Padding) {
        self.sealing.padding = padding;
    }

    pub(super) fn pads(&mut self, generation: Generation) -> bool {
        #[cfg(feature = "plain")]
        if self.sealing.plain {
            return false;
        }
        match self.sealing.padding {
            Padding::Relayed => self.links.get(generation).is_some_and(|of| !of.is_direct()),
            Padding::Never => false,
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
    pub(super) fn lease(&mut self) {
        let next = self.sealing.next.0;
        if self.live.keys.leased.0 < next.saturating_add(NUMBER_LEASE / 2) {
            self.live.keys.leased = PacketNumber(next.saturating_add(NUMBER_LEASE));
        }
    }

    /// Seals the frames of one packet. Called when [`can_seal`](Self::can_seal) said yes.
    ///
    /// What holds a handshake is sealed by itself: who needs one may have no key that we have. Not so
    /// one that replaces keys for their age: both have those.
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
            Mode::Shared
                if handshake
                    && !self.only_replaces()
                    && self.rules.keeps(Rule::HandshakeByItself) =>
            {
                Mode::OneWay
            }
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
}
