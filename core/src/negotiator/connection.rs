//! What the connection tells.

use super::state::{Link, State};
use super::{Negotiator, Wish};
use crate::limits::{CANDIDATE_BYTES, ICE_RESTART_TIME, SDP_BYTES, STEADY_TIME};
use crate::wire::signal::{Answer, Offer, Signal};
use crate::{Negotiation, Now};

impl Negotiator {
    /// The connection has made a description, and set it.
    pub fn described(&mut self, negotiation: Negotiation, sdp: String, now: Now) {
        if !self.is_about(negotiation) {
            return;
        }
        if sdp.len() > SDP_BYTES {
            return self.failed(negotiation, now);
        }
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Making(mut attempt) => {
                let unsaid = attempt.unsaid.release();
                let restarts = attempt.restarts;
                self.state = State::Offered(attempt);
                self.say(Signal::Offer(Offer {
                    negotiation,
                    restarts,
                    sdp,
                }));
                self.say_candidates(negotiation, unsaid);
            }
            State::Answering(mut attempt) => {
                let unsaid = attempt.unsaid.release();
                self.state = State::Stable {
                    connection: attempt.connection(self.run),
                    attempt,
                    link: Link::Connecting,
                };
                self.say(Signal::Answer(Answer {
                    negotiation,
                    own: self.own,
                    run: self.run,
                    sdp,
                }));
                self.say_candidates(negotiation, unsaid);
                self.restart_if_asked(now);
            }
            other @ (State::Idle
            | State::Waiting { .. }
            | State::Offered(_)
            | State::Stable { .. }) => self.state = other,
        }
    }

    /// The connection has found an address of its own. Empty: there are no more. One that is too
    /// long, or one too many, is not said.
    pub fn found(&mut self, negotiation: Negotiation, candidate: String) {
        if !self.is_about(negotiation) || candidate.len() > CANDIDATE_BYTES {
            return;
        }
        match &mut self.state {
            State::Idle | State::Waiting { .. } => {}
            State::Making(attempt) | State::Answering(attempt) => attempt.unsaid.hold(candidate),
            State::Offered(attempt) | State::Stable { attempt, .. } => {
                if attempt.unsaid.admit() {
                    self.say_candidates(negotiation, vec![candidate]);
                }
            }
        }
    }

    /// The connection could not make a description or set one.
    pub fn failed(&mut self, negotiation: Negotiation, now: Now) {
        if !self.is_about(negotiation) {
            return;
        }
        self.settle(now);
        if matches!(self.state, State::Answering(_)) {
            self.decline(negotiation);
        }
        self.start_over(now);
    }

    /// The connection carries data: for the first time, or again after a restart.
    pub fn up(&mut self, negotiation: Negotiation, now: Now) {
        if !self.is_about(negotiation) {
            return;
        }
        if let State::Stable {
            link: link @ Link::Connecting,
            ..
        } = &mut self.state
        {
            *link = Link::Up(now.elapsed);
        }
    }

    /// Nothing comes over the connection any more. That may pass, but it is not waited for: ICE is
    /// restarted, if this connection is wanted, and finds another way or the same one again.
    pub fn silent(&mut self, negotiation: Negotiation, now: Now) {
        let up = matches!(
            self.state,
            State::Stable {
                link: Link::Up(_),
                ..
            }
        );
        if self.is_about(negotiation) && up && self.wish == Wish::Wanted {
            self.restart(now);
        }
    }

    /// The connection does not carry data any more, and will not by itself.
    pub fn down(&mut self, negotiation: Negotiation, now: Now) {
        if !self.is_about(negotiation) {
            return;
        }
        self.settle(now);
        let State::Stable { attempt, link, .. } = &mut self.state else {
            return;
        };
        match link {
            Link::Up(since) if now.elapsed.saturating_sub(*since) >= STEADY_TIME => {
                if self.wish == Wish::Wanted {
                    self.restart(now);
                } else {
                    // Whoever wants it restarts it.
                    *link = Link::Connecting;
                    attempt.deadline = now.elapsed + ICE_RESTART_TIME;
                }
            }
            Link::Up(_) | Link::Connecting => self.start_over(now),
        }
    }
}
