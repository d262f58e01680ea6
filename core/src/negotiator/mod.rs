//! The negotiator: how two peers come to a direct connection by offers, answers and candidates.
//!
//! It is the perfect negotiation of [W3C WebRTC, section 10.7], as a pure state machine: no
//! connection, no clock, no randomness of its own. Inputs are method calls with the time; outputs
//! are [polled](Negotiator::poll) until there are none, **after each input**, and done one after the
//! other. Signals travel on [`ChannelId::SIGNALING`](crate::ChannelId::SIGNALING): in order as long
//! as both peers keep their state, but late, doubled after a restart, or missing because their time
//! was over.
//!
//! ```text
//!   runtime: want, restart, wake, forbid, tick ──▶ ┌────────────┐ ──▶ Send, Cancel ──▶ the session
//!   connection: described, found, failed, ───────▶ │ Negotiator │ ──▶ CreateOffer, ApplyOffer, ..
//!               up, silent, down                   └────────────┘       Reset ──▶ the connection
//!   the peer's signals: receive ─────────────────────▲
//! ```
//!
//! What is decided here, and why:
//!
//! - **Glare.** Of two offers that cross, the one of the polite peer (the smaller
//!   [`PeerId`]) is rolled back (RFC 8829, section 4.1.10.2). Only an offer of a new connection
//!   always goes before a restart of an old one: who makes it has lost the old one.
//! - **Generations.** Each offer has a [round](Round) that only grows, across starts of the process
//!   too. An offer that is not after the newest that was heard is never applied; answers and
//!   candidates count for the very negotiation they name. An answer tells the round of its sender,
//!   and so takes back what it had offered and may still be on its way.
//! - **Lost state.** A peer that counts from the beginning again is told so
//!   ([`Decline`]), goes on above what was heard of it, and offers
//!   anew: it costs one round trip. Its names are told apart from those of its past by the random
//!   [`run`](Negotiation::run). If the peer answers an offer of that past, that is as good as being
//!   told.
//! - **There are two kinds of offers**: of a new connection, and of an ICE restart. A connection
//!   carries the one data channel it was made with, so there is nothing else to renegotiate.
//! - **An end to every attempt.** A negotiation that is not up in its time is given up, with back-off;
//!   a restart that is not ends in a new connection.
//!
//! Beside it stands the [`Rendezvous`], for links that need no negotiation: peers tell each other
//! their addresses and dial.
//!
//! [W3C WebRTC, section 10.7]: https://www.w3.org/TR/webrtc/#perfect-negotiation-example

mod backoff;
mod connection;
mod extra;
mod output;
mod rendezvous;
mod rules;
mod signals;
mod state;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits::{ADDRESSES_TTL, ICE_RESTART_TIME, NEGOTIATION_TIME, STEADY_TIME};
use crate::wire::signal::{Candidate, ConnectionId, Decline, Signal, Withdraw};
use crate::{Entropy, Negotiation, Now, PeerId, Round};

use backoff::Backoff;
pub use extra::{DialedBy, LinkSeen, extra_links};
pub use output::{Output, Status};
pub use rendezvous::{Rendezvous, RendezvousOutput};
pub use rules::Rule;
use rules::Rules;
use state::{Attempt, Candidates, Link, State, Why};

/// Whether a connection is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// No: the peer's offers are declined.
    Forbidden,
    /// If the peer wants one.
    Passive,
    /// Yes.
    Wanted,
}

/// Negotiates one connection at a time with one peer. See the [module](self).
#[derive(Debug)]
#[cfg_attr(feature = "sabotage", derive(Clone))]
pub struct Negotiator {
    /// Whether our offer gives way to one of the peer.
    polite: bool,
    /// Tells our negotiations from those before this start.
    run: u64,
    /// The round of the last thing we said that has one.
    own: Round,
    /// That of the peer, as far as we heard.
    heard: Option<Round>,
    /// Its last offer, known again when it comes twice.
    last_offer: Option<Negotiation>,
    wish: Wish,
    state: State,
    /// A restart was asked for while a negotiation was going on.
    again: bool,
    /// Candidates of an offer that has not come yet: the newest of such.
    early: Option<(Negotiation, Candidates<(u64, String)>)>,
    backoff: Backoff,
    entropy: Entropy,
    outputs: VecDeque<Output>,
    rules: Rules,
}

impl Negotiator {
    /// A negotiator of `me` with `peer`, whose rounds come after `last`.
    ///
    /// It takes offers from now on and makes none until it is [wanted](Self::want).
    #[must_use]
    pub fn new(me: PeerId, peer: PeerId, last: Round, mut entropy: Entropy) -> Self {
        Self {
            polite: me < peer,
            run: u64::from_le_bytes(entropy.token()),
            own: last,
            heard: None,
            last_offer: None,
            wish: Wish::Passive,
            state: State::Idle,
            again: false,
            early: None,
            backoff: Backoff::default(),
            entropy,
            outputs: VecDeque::new(),
            rules: Rules::default(),
        }
    }

    /// A connection is wanted from now on: it is offered, and offered again when it is lost. What was
    /// waited for when one was wanted before is waited for still.
    pub fn want(&mut self, now: Now) {
        if self.wish == Wish::Wanted {
            return;
        }
        self.wish = Wish::Wanted;
        if matches!(self.state, State::Idle) {
            self.offer(None, now);
        }
    }

    /// A connection is no longer sought, nor forbidden: the peer's offers are taken, and what there
    /// is stays.
    pub fn allow(&mut self) {
        self.wish = Wish::Passive;
    }

    /// Direct links to this peer are forbidden: what there is of one ends, and the peer is told.
    pub fn forbid(&mut self) {
        if self.wish == Wish::Forbidden {
            return;
        }
        self.wish = Wish::Forbidden;
        // A peer that never heard of us need not hear this: its first offer is answered with it.
        let silent = matches!(self.state, State::Idle) && self.heard.is_none();
        self.abandon();
        if !silent {
            self.own = self.own.next();
            self.withdraw(None);
        }
    }

    /// The way to the peer has changed (a new address, another network): ICE is restarted on the
    /// connection there is. Whoever waits to try again tries now.
    pub fn restart(&mut self, now: Now) {
        self.settle(now);
        match &self.state {
            State::Idle => {}
            State::Waiting { .. } => self.wake(now),
            State::Making(_) | State::Offered(_) | State::Answering(_) => self.again = true,
            State::Stable { connection, .. } => {
                // Our answer may not have left yet, and the restart needs it: nothing is taken back.
                let connection = *connection;
                self.offer(Some(connection), now);
            }
        }
    }

    /// It may work now (the network is back, the peer is there again): whoever waits to try again
    /// tries now, unless the peer wants no offers.
    pub fn wake(&mut self, now: Now) {
        if let State::Waiting {
            why: Why::Failed,
            until,
        } = &mut self.state
        {
            // If none is wanted, as soon as one is.
            *until = now.elapsed;
            if self.wish == Wish::Wanted {
                self.offer(None, now);
            }
        }
    }

    /// Time has passed: at least up to the [deadline](Self::deadline).
    pub fn tick(&mut self, now: Now) {
        self.settle(now);
        if self.deadline().is_none_or(|at| now.elapsed < at) {
            return;
        }
        match &self.state {
            State::Idle => {}
            State::Waiting { .. } => self.offer(None, now),
            State::Making(attempt)
            | State::Offered(attempt)
            | State::Answering(attempt)
            | State::Stable { attempt, .. } => {
                let restarts = attempt.restarts;
                if restarts.is_some() && !self.rules.keeps(Rule::NewAfterRestart) {
                    return self.offer(restarts, now);
                }
                self.start_over(now);
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do, if nothing else happens before.
    #[must_use]
    pub const fn deadline(&self) -> Option<Duration> {
        match (&self.state, self.wish) {
            (State::Waiting { .. }, Wish::Passive | Wish::Forbidden) => None,
            (state, _) => state.deadline(),
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How far it is.
    #[must_use]
    pub const fn status(&self) -> Status {
        match &self.state {
            State::Idle => Status::Idle,
            State::Waiting { .. } => Status::Waiting,
            State::Making(attempt) | State::Offered(attempt) | State::Answering(attempt) => {
                Status::Negotiating(attempt.negotiation)
            }
            State::Stable {
                attempt,
                link: Link::Connecting,
                ..
            } => Status::Connecting(attempt.negotiation),
            State::Stable {
                attempt,
                link: Link::Up(_),
                ..
            } => Status::Up(attempt.negotiation),
        }
    }

    fn is_about(&self, negotiation: Negotiation) -> bool {
        self.state
            .attempt()
            .is_some_and(|attempt| attempt.negotiation == negotiation)
    }

    /// Begins a negotiation: of a new connection, or of a restart of this one.
    fn offer(&mut self, restarts: Option<ConnectionId>, now: Now) {
        self.again = false;
        self.own = self.own.next();
        let negotiation = Negotiation {
            round: self.own,
            run: self.run,
        };
        let attempt = Attempt::new(negotiation, restarts, now.elapsed);
        self.outputs.push_back(Output::CreateOffer {
            negotiation,
            restart: restarts.is_some(),
        });
        self.state = State::Making(attempt);
    }

    fn restart_if_asked(&mut self, now: Now) {
        if std::mem::take(&mut self.again) {
            self.restart(now);
        }
    }

    /// What there is of a connection ends.
    fn abandon(&mut self) {
        self.cancel();
        if self.state.attempt().is_some() {
            self.outputs.push_back(Output::Reset);
        }
        self.again = false;
        self.state = State::Idle;
    }

    /// What there is of a connection ends, and if one is wanted, there will be another: at once
    /// after the first failure, later after more of them.
    fn start_over(&mut self, now: Now) {
        self.abandon();
        if self.wish != Wish::Wanted {
            return;
        }
        let first = self.backoff.is_untried();
        let wait = self.backoff.failed(&mut self.entropy);
        if first {
            self.offer(None, now);
        } else {
            self.state = State::Waiting {
                until: now.elapsed + wait,
                why: Why::Failed,
            };
        }
    }

    /// A connection that has been up for long enough was worth its attempts.
    fn settle(&mut self, now: Now) {
        if let State::Stable {
            link: Link::Up(since),
            ..
        } = self.state
            && now.elapsed.saturating_sub(since) >= STEADY_TIME
        {
            self.backoff.succeeded();
        }
    }

    fn say(&mut self, signal: Signal) {
        let attempt = self.state.attempt();
        let restarts = attempt.is_some_and(|attempt| attempt.restarts.is_some());
        let ttl = match signal {
            Signal::Withdraw(_) => ADDRESSES_TTL,
            _ if restarts => ICE_RESTART_TIME,
            _ => NEGOTIATION_TIME,
        };
        self.outputs.push_back(Output::Send { signal, ttl });
    }

    fn say_candidates(&mut self, negotiation: Negotiation, candidates: Vec<String>) {
        let run = self.run;
        for candidate in candidates {
            self.say(Signal::Candidate(Candidate {
                negotiation,
                run,
                candidate,
            }));
        }
    }

    fn decline(&mut self, negotiation: Negotiation) {
        let above = self.heard.unwrap_or(negotiation.round);
        if self.rules.keeps(Rule::Decline) {
            self.say(Signal::Decline(Decline { negotiation, above }));
        }
    }

    fn withdraw(&mut self, declines: Option<Negotiation>) {
        let round = self.own;
        self.say(Signal::Withdraw(Withdraw { round, declines }));
    }

    fn cancel(&mut self) {
        if let Some(attempt) = self.state.attempt() {
            let negotiation = attempt.negotiation;
            self.outputs.push_back(Output::Cancel { negotiation });
        }
    }
}
