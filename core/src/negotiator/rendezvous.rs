//! The rendezvous: where two peers are, and when they dial each other.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Wish;
use super::backoff::Backoff;
use crate::limits::{
    ADDRESSES, ADDRESSES_TTL, DIAL_APART, DIRECT_AGAIN_MOST, GIVEN_ADDRESSES, STEADY_TIME,
};
use crate::wire::signal::{Addresses, Signal};
use crate::{Entropy, Now, Round};

/// What a [`Rendezvous`] wants done. [Polled](Rendezvous::poll) after each input until there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RendezvousOutput {
    /// Send a signal as a message of [`ChannelId::SIGNALING`](crate::ChannelId::SIGNALING). It takes
    /// the place of the last one of these, which is taken back if it has not left this device.
    Send {
        /// The signal.
        signal: Signal,
        /// How long it matters.
        ttl: Duration,
    },
    /// Dial the peer at these addresses, in place of those that are being dialed: then
    /// [`linked`](Rendezvous::linked) or [`dial_failed`](Rendezvous::dial_failed).
    Dial(Vec<SocketAddr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing to do.
    Still,
    /// The peer is being dialed.
    Dialing,
    /// It will be dialed again.
    Resting {
        /// When.
        until: Duration,
        /// Whether it will be asked to dial as well.
        ask: bool,
    },
    /// A link is up.
    Linked {
        /// Since when.
        since: Duration,
        /// Whether the peer is to be dialed all the same, as soon as that makes sense.
        redial: bool,
        /// Whether the network has changed since, and no other addresses are known yet.
        moved: bool,
    },
}

/// Where the peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Theirs {
    /// It has not said so yet.
    Unknown,
    /// It can't, or does not want to, be found. It will say when that changes.
    Nowhere,
    /// There.
    At(Vec<SocketAddr>),
}

/// Finds one peer by addresses, and is found by it.
///
/// Each tells the other the addresses of its socket ([`Addresses`]), again whenever they change, and
/// dials what the other told. Who finds the other gone asks for its addresses and dials at the same
/// time; who is asked answers and dials too, so that the packets of both meet in the NATs between
/// them. Both ends go on trying for ever, with back-off: a peer that slept is found by whichever
/// wakes.
///
/// ```text
///            addresses of the peer            linked
///   Still ─────────────────────────▶ Dialing ───────▶ Linked
///     ▲                               │   ▲              │
///     │ nowhere to be found    failed │   │ until        │ unlinked
///     │                               ▼   │              │
///     └────────────────────────────  Resting ◀───────────┘
/// ```
///
/// Dialing at once can give two links; [`extra_links`](super::extra_links) tells which one goes. As
/// for a [`Negotiator`](super::Negotiator), all outputs are polled after each input.
#[derive(Debug)]
#[cfg_attr(feature = "sabotage", derive(Clone))]
pub struct Rendezvous {
    wish: Wish,
    state: State,
    /// The round in which we last said something.
    own: Round,
    /// Where we are, if that is known.
    ours: Vec<SocketAddr>,
    /// What of it the peer was told, if anything was said.
    said: Option<Vec<SocketAddr>>,
    /// The peer's last round.
    heard: Option<Round>,
    theirs: Theirs,
    /// Where it is besides, as others than the peer say.
    given: Vec<SocketAddr>,
    /// Whether the link that is up may be dead.
    doubted: bool,
    /// Before this the peer is not dialed again, whatever it says.
    not_before: Duration,
    backoff: Backoff,
    entropy: Entropy,
    outputs: VecDeque<RendezvousOutput>,
}

impl Rendezvous {
    /// A rendezvous whose rounds come after `last`. It answers the peer, and seeks it only when it
    /// is [wanted](Self::want).
    #[must_use]
    pub fn new(last: Round, entropy: Entropy) -> Self {
        Self {
            wish: Wish::Passive,
            state: State::Still,
            own: last,
            ours: Vec::new(),
            said: None,
            heard: None,
            theirs: Theirs::Unknown,
            given: Vec::new(),
            doubted: false,
            not_before: Duration::ZERO,
            backoff: Backoff::default(),
            entropy,
            outputs: VecDeque::new(),
        }
    }

    /// A direct link is wanted from now on. Where our addresses are known already, tell them
    /// [before](Self::located): then one signal is enough.
    pub fn want(&mut self, now: Now) {
        if self.wish == Wish::Wanted {
            return;
        }
        self.wish = Wish::Wanted;
        if !self.is_linked() {
            self.seek(now);
        }
    }

    /// A link is no longer sought, nor forbidden: the peer is answered, and dialed when it asks. A dial
    /// that was only put off for a moment is made: the peer may have asked for it.
    pub fn allow(&mut self) {
        let forbidden = self.wish == Wish::Forbidden;
        self.wish = Wish::Passive;
        if let State::Resting { ask: true, .. } = self.state {
            self.state = State::Still;
        }
        if forbidden && self.said.is_some() || self.is_elsewhere() {
            self.say(false);
        }
    }

    /// Whether we are elsewhere than the peer was told.
    fn is_elsewhere(&self) -> bool {
        let said = self.said.as_ref();
        self.wish != Wish::Forbidden && said.is_some_and(|said| *said != self.ours)
    }

    /// Direct links to this peer are forbidden: it is not dialed, and not told where we are; what it
    /// was told is taken back. Links that are up, and those that it dials, are the caller's to close.
    pub fn forbid(&mut self) {
        let mut unsaid = false;
        if self.wish != Wish::Forbidden {
            // What was not done yet is not done any more.
            let says = |output| matches!(output, RendezvousOutput::Send { .. });
            unsaid = self.outputs.drain(..).any(says);
        }
        self.wish = Wish::Forbidden;
        if !self.is_linked() {
            self.state = State::Still;
        }
        if unsaid || self.said.as_ref().is_some_and(|said| !said.is_empty()) {
            self.say(false);
        }
    }

    /// Where this node may be reached at the moment, the most likely first. Those beyond
    /// [`ADDRESSES`] are left out.
    pub fn located(&mut self, mut addresses: Vec<SocketAddr>, now: Now) {
        addresses.truncate(ADDRESSES);
        self.ours = addresses;
        let Some(said) = self.said.as_ref().filter(|_| self.is_elsewhere()) else {
            return;
        };
        // Some NATs forget us within seconds, and show us at another port each time. Nothing came of the
        // last one either: the peer is told when it is sought again, or is heard, and not woken for each.
        let rests = matches!(self.state, State::Resting { ask: true, .. });
        if rests && hosts(said) == hosts(&self.ours) {
            return;
        }
        // Where we are now, we have to be dialed anew. A link that is up may have moved with us, or
        // not: whoever accepted it can't be followed. If we have not moved, we are only seen elsewhere.
        let seeks = match &mut self.state {
            State::Linked { moved, .. } => std::mem::take(moved),
            State::Still | State::Dialing | State::Resting { .. } => true,
        };
        if seeks && self.wish == Wish::Wanted {
            self.seek(now);
        } else {
            self.say(false);
        }
    }

    /// Where the peer may be reached besides, known otherwise than from the peer: dialed before it has
    /// told anything, and first after that, but not if it says that it does not want to be found.
    /// Those beyond [`GIVEN_ADDRESSES`] are left out.
    pub fn given(&mut self, mut addresses: Vec<SocketAddr>, now: Now) {
        addresses.retain(is_dialable);
        addresses.truncate(GIVEN_ADDRESSES);
        let more = addresses.iter().any(|new| !self.given.contains(new));
        self.given = addresses;
        if more && self.wish == Wish::Wanted && !self.is_linked() {
            self.dial(now);
        }
    }

    /// It may work now (the network is back, the peer is there again): whoever waits tries now, and
    /// whoever tries begins anew. A link that is up may be lost, and another is sought as soon as we are
    /// [found](Self::located) elsewhere.
    pub fn wake(&mut self, now: Now) {
        match &mut self.state {
            State::Linked { moved, .. } => *moved = true,
            State::Still | State::Dialing | State::Resting { .. } => {
                if self.wish == Wish::Wanted {
                    self.seek(now);
                }
            }
        }
    }

    /// A direct link is up, whoever dialed it.
    pub fn linked(&mut self, now: Now) {
        if !self.is_linked() {
            self.state = State::Linked {
                since: now.elapsed,
                redial: false,
                moved: false,
            };
        }
    }

    /// Whether the link that is up may be dead: then the peer is dialed beside it, again and again, so
    /// that a network that was gone is found to be back by a new link sooner than by the old one.
    pub fn doubt(&mut self, doubted: bool, now: Now) {
        self.doubted = doubted;
        self.dial_beside(now);
    }

    fn dial_beside(&mut self, now: Now) {
        if self.seeks_another() && self.not_before <= now.elapsed {
            self.dial(now);
        }
    }

    /// Whether another link is sought beside the one that is up.
    fn seeks_another(&self) -> bool {
        let State::Linked { redial, .. } = self.state else {
            return false;
        };
        let seeks = match self.wish {
            Wish::Forbidden => false,
            Wish::Passive => redial,
            Wish::Wanted => redial || self.doubted,
        };
        seeks && !self.dialable().is_empty()
    }

    /// No direct link is up any more.
    pub fn unlinked(&mut self, now: Now) {
        let State::Linked { since, .. } = self.state else {
            return;
        };
        if now.elapsed.saturating_sub(since) < STEADY_TIME {
            return self.rest(now);
        }
        self.backoff.succeeded();
        self.state = State::Still;
        if self.wish == Wish::Wanted {
            self.seek(now);
        }
    }

    /// No direct link is up any more: the peer let the last one go. It has no use for a link now, and
    /// may let the next one go as well.
    pub fn parted(&mut self, now: Now) {
        let State::Linked { since, .. } = self.state else {
            return;
        };
        if now.elapsed.saturating_sub(since) >= DIRECT_AGAIN_MOST {
            self.backoff.succeeded();
        }
        self.rest(now);
    }

    /// Nobody answered as the peer at any of the addresses.
    pub fn dial_failed(&mut self, now: Now) {
        if self.state == State::Dialing {
            self.rest(now);
        }
    }

    /// The peer told where it is.
    pub fn receive(&mut self, signal: Addresses, now: Now) {
        let Addresses {
            round,
            heard,
            mut addresses,
            reply,
        } = signal;
        if addresses.len() > ADDRESSES {
            return;
        }
        // A round that is still to come: we said that before we lost our state.
        let past = heard.filter(|heard| heard.is_after(self.own));
        self.own = past.unwrap_or(self.own);
        if self.heard.is_some_and(|known| !round.is_after(known)) {
            if self.heard != Some(round) {
                // It came late, or its sender lost its state. In case it did, it learns from
                // `heard` where to go on.
                self.say(false);
            }
            return;
        }
        self.heard = Some(round);
        addresses.retain(is_dialable);
        let theirs = match (addresses.is_empty(), reply) {
            (false, _) => Theirs::At(addresses),
            (true, true) => Theirs::Unknown,
            (true, false) => Theirs::Nowhere,
        };
        let moved = theirs != self.theirs;
        self.theirs = theirs;
        if reply || past.is_some() || self.is_elsewhere() {
            self.say(false);
        }
        let wanted = match self.wish {
            Wish::Forbidden => return,
            Wish::Passive => reply,
            Wish::Wanted => true,
        };
        match (&self.theirs, self.state) {
            (Theirs::At(_), State::Linked { .. }) => {
                // It would not ask if it thought the link alive.
                if reply {
                    self.dial(now);
                }
            }
            (Theirs::At(_), State::Dialing) if !moved => {}
            (Theirs::At(_), State::Still | State::Dialing | State::Resting { .. }) => {
                if wanted {
                    self.dial(now);
                }
            }
            (Theirs::Nowhere, State::Resting { .. }) => self.state = State::Still,
            (Theirs::Nowhere | Theirs::Unknown, _) => {}
        }
    }

    /// Time has passed: at least up to the [deadline](Self::deadline).
    pub fn tick(&mut self, now: Now) {
        match self.state {
            State::Resting { until, ask } if until <= now.elapsed => {
                if ask {
                    self.seek(now);
                } else {
                    self.dial(now);
                }
            }
            State::Linked { .. } => self.dial_beside(now),
            State::Still | State::Dialing | State::Resting { .. } => {}
        }
    }

    /// When [`tick`](Self::tick) has something to do, if nothing else happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Resting { until, .. } => Some(until),
            State::Linked { .. } => Some(self.not_before).filter(|_| self.seeks_another()),
            State::Still | State::Dialing => None,
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<RendezvousOutput> {
        self.outputs.pop_front()
    }

    const fn is_linked(&self) -> bool {
        matches!(self.state, State::Linked { .. })
    }

    /// Has both ends dial at once.
    fn seek(&mut self, now: Now) {
        self.say(true);
        self.dial(now);
    }

    /// Dials the peer, or will as soon as that makes sense. A link that is up stays so meanwhile.
    fn dial(&mut self, now: Now) {
        let addresses = self.dialable();
        let later = now.elapsed < self.not_before;
        if let State::Linked { redial, .. } = &mut self.state {
            *redial = later;
        } else if addresses.is_empty() {
            return self.rest(now);
        } else if later {
            self.state = State::Resting {
                until: self.not_before,
                ask: false,
            };
        } else {
            self.state = State::Dialing;
        }
        if !later && !addresses.is_empty() {
            self.outputs.push_back(RendezvousOutput::Dial(addresses));
            self.not_before = now.elapsed.saturating_add(DIAL_APART);
        }
    }

    /// All addresses that the peer may be at.
    fn dialable(&self) -> Vec<SocketAddr> {
        let told: &[SocketAddr] = match &self.theirs {
            Theirs::Nowhere => return Vec::new(),
            Theirs::Unknown => &[],
            Theirs::At(told) => told,
        };
        let told = told.iter().filter(|told| !self.given.contains(told));
        self.given.iter().chain(told).copied().collect()
    }

    /// Nothing came of it: later again, if anything can come of that.
    fn rest(&mut self, now: Now) {
        self.state = if self.wish == Wish::Wanted && self.theirs != Theirs::Nowhere {
            let wait = self.backoff.failed(&mut self.entropy);
            State::Resting {
                until: now.elapsed.saturating_add(wait),
                ask: true,
            }
        } else {
            State::Still
        };
    }

    fn say(&mut self, reply: bool) {
        self.own = self.own.next();
        let addresses = match self.wish {
            Wish::Forbidden => Vec::new(),
            Wish::Passive | Wish::Wanted => self.ours.clone(),
        };
        self.said = Some(addresses.clone());
        self.outputs.push_back(RendezvousOutput::Send {
            signal: Signal::Addresses(Addresses {
                round: self.own,
                heard: self.heard,
                addresses,
                reply,
            }),
            ttl: ADDRESSES_TTL,
        });
    }
}

/// Where, but for the ports.
fn hosts(addresses: &[SocketAddr]) -> BTreeSet<IpAddr> {
    addresses.iter().map(SocketAddr::ip).collect()
}

/// Whether anybody can be there. Others would have us send to everybody, or to nobody.
const fn is_dialable(address: &SocketAddr) -> bool {
    let ip = address.ip();
    let nobody = ip.is_unspecified() || ip.is_multicast() || address.port() == 0;
    let everybody = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !nobody && !everybody
}

#[cfg(test)]
mod tests;
