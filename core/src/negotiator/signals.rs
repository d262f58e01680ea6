//! What the peer says.

use super::state::{Attempt, Candidates, Link, State, Why};
use super::{Negotiator, Output, Rule, Wish};
use crate::limits::WITHDRAWN_TIME;
use crate::wire::signal::{Answer, Candidate, ConnectionId, Decline, Offer, Signal, Withdraw};
use crate::{Negotiation, Now, Round};

/// What becomes of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is applied to the connection there is, after this.
    Apply(Before),
    /// Ours goes before it: the peer will see that.
    Ignore,
    /// It can't be taken.
    Decline,
}

/// What has to be done before an offer can be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Nothing.
    Nothing,
    /// Our own offer is taken back.
    Rollback,
    /// The connection is let go of.
    Reset,
}

impl Negotiator {
    /// A signal came from the peer. Those that are not of a negotiation change nothing here.
    pub fn receive(&mut self, signal: Signal, now: Now) {
        if signal.check().is_err() {
            return;
        }
        self.settle(now);
        match signal {
            Signal::Offer(offer) => self.offered(offer, now),
            Signal::Answer(answer) => self.answered(answer, now),
            Signal::Candidate(candidate) => self.heard_candidate(candidate),
            Signal::Decline(decline) => self.declined(&decline, now),
            Signal::Withdraw(withdraw) => self.withdrawn(&withdraw, now),
            Signal::Addresses(_) | Signal::Mailboxes(_) => {}
        }
    }

    fn offered(&mut self, offer: Offer, now: Now) {
        let negotiation = offer.negotiation;
        let stale = self.is_stale(negotiation.round);
        if negotiation.run == self.run || (stale && self.last_offer == Some(negotiation)) {
            // Said by nobody, or known.
            return;
        }
        if !stale {
            self.hear(negotiation.round);
            self.last_offer = Some(negotiation);
        }
        if self.wish == Wish::Forbidden {
            return self.withdraw(Some(negotiation));
        }
        if stale && self.rules.keeps(Rule::Generations) {
            return self.decline(negotiation);
        }
        match self.judge(offer.restarts) {
            Verdict::Apply(before) => self.accept(offer, before, now),
            Verdict::Ignore => {}
            Verdict::Decline => self.decline(negotiation),
        }
    }

    /// What becomes of an offer that is new: of a new connection, or of a restart of this one.
    fn judge(&self, restarts: Option<ConnectionId>) -> Verdict {
        let yields = self.polite || !self.rules.keeps(Rule::Politeness);
        match (&self.state, restarts) {
            (State::Idle | State::Waiting { .. }, None) => Verdict::Apply(Before::Nothing),
            (State::Making(ours) | State::Offered(ours), None) => {
                if ours.restarts.is_some() {
                    Verdict::Apply(Before::Reset)
                } else if yields {
                    Verdict::Apply(Before::Rollback)
                } else {
                    Verdict::Ignore
                }
            }
            (State::Answering(_) | State::Stable { .. }, None) => Verdict::Apply(Before::Reset),
            (State::Making(ours) | State::Offered(ours), Some(_)) if ours.restarts == restarts => {
                if yields {
                    Verdict::Apply(Before::Rollback)
                } else {
                    Verdict::Ignore
                }
            }
            (State::Stable { connection, .. }, Some(theirs)) if *connection == theirs => {
                Verdict::Apply(Before::Nothing)
            }
            // A connection that we don't have, or not so far.
            (
                State::Idle
                | State::Waiting { .. }
                | State::Making(_)
                | State::Offered(_)
                | State::Answering(_)
                | State::Stable { .. },
                Some(_),
            ) => Verdict::Decline,
        }
    }

    fn accept(&mut self, offer: Offer, before: Before, now: Now) {
        let Offer {
            negotiation,
            restarts,
            sdp,
        } = offer;
        self.cancel();
        match before {
            Before::Nothing => {}
            Before::Rollback => self.outputs.push_back(Output::Rollback),
            Before::Reset => self.outputs.push_back(Output::Reset),
        }
        if before != Before::Nothing {
            // Both descriptions will be new, and so will be the candidates of both.
            self.again = false;
        }
        let mut attempt = Attempt::new(negotiation, restarts, now.elapsed);
        self.outputs
            .push_back(Output::ApplyOffer { negotiation, sdp });
        if let Some((_, held)) = self.early.take_if(|(early, _)| *early == negotiation) {
            attempt.held = held;
        }
        let held = attempt.held.release();
        self.state = State::Answering(attempt);
        self.add(held);
    }

    fn answered(&mut self, answer: Answer, now: Now) {
        let Answer {
            negotiation,
            own,
            run,
            sdp,
        } = answer;
        let taken_back = self.rules.keeps(Rule::TakeBack);
        if taken_back && self.heard.is_none_or(|heard| own.is_after(heard)) {
            self.hear(own);
        }
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Offered(mut attempt)
                if attempt.negotiation == negotiation || !self.rules.keeps(Rule::AnswersMatch) =>
            {
                let negotiation = attempt.negotiation;
                let held = attempt.held.release();
                self.state = State::Stable {
                    connection: attempt.connection(run),
                    attempt,
                    link: Link::Connecting,
                };
                if self.remote_run() != Some(run) {
                    // It has answered a restart of a connection that is not its own.
                    return self.start_over(now);
                }
                self.outputs
                    .push_back(Output::ApplyAnswer { negotiation, sdp });
                self.add(held);
                self.restart_if_asked(now);
            }
            other => {
                self.state = other;
                // We offered it before we lost our state, and the peer took it for the newest.
                let past = negotiation.run != self.run && negotiation.round.is_after(self.own);
                if past {
                    self.own = negotiation.round;
                }
                // The peer answered before, and has started anew since.
                let again = self.is_about(negotiation) && self.remote_run() != Some(run);
                let taken_back = taken_back && self.is_taken_back(own);
                if self.state.attempt().is_some() && (past || again || taken_back) {
                    self.start_over(now);
                }
            }
        }
    }

    /// Whether the negotiation that is going on is one of the peer's that it has taken back.
    fn is_taken_back(&self, own: Round) -> bool {
        self.state
            .attempt()
            .map(|attempt| attempt.negotiation)
            .is_some_and(|current| current.run != self.run && !current.round.is_after(own))
    }

    /// The run of the peer that made its description in this negotiation, if there is one.
    fn remote_run(&self) -> Option<u64> {
        match &self.state {
            State::Idle | State::Waiting { .. } | State::Making(_) | State::Offered(_) => None,
            State::Answering(attempt) => Some(attempt.negotiation.run),
            State::Stable { connection, .. } => {
                let we_offered = connection.offer.run == self.run;
                Some(if we_offered {
                    connection.answered
                } else {
                    connection.offer.run
                })
            }
        }
    }

    fn heard_candidate(&mut self, signal: Candidate) {
        let Candidate {
            negotiation,
            run,
            candidate,
        } = signal;
        let matches = self.is_about(negotiation) || !self.rules.keeps(Rule::CandidatesMatch);
        match &mut self.state {
            State::Making(attempt) | State::Offered(attempt) if matches => {
                if self.rules.keeps(Rule::HoldCandidates) {
                    attempt.held.hold((run, candidate));
                } else {
                    self.outputs.push_back(Output::AddCandidate {
                        negotiation,
                        candidate,
                    });
                }
            }
            State::Answering(attempt) | State::Stable { attempt, .. } if matches => {
                if attempt.held.admit() {
                    self.add(vec![(run, candidate)]);
                }
            }
            State::Idle
            | State::Waiting { .. }
            | State::Making(_)
            | State::Offered(_)
            | State::Answering(_)
            | State::Stable { .. } => self.hold_early(negotiation, run, candidate),
        }
    }

    /// Keeps a candidate whose offer may come yet.
    fn hold_early(&mut self, negotiation: Negotiation, run: u64, candidate: String) {
        if negotiation.run == self.run
            || self.wish == Wish::Forbidden
            || self.is_stale(negotiation.round)
        {
            return;
        }
        let newer = self
            .early
            .as_ref()
            .is_none_or(|(early, _)| negotiation.round.is_after(early.round));
        if newer {
            self.early = Some((negotiation, Candidates::default()));
        }
        if let Some((early, held)) = &mut self.early
            && *early == negotiation
        {
            held.hold((run, candidate));
        }
    }

    fn declined(&mut self, decline: &Decline, now: Now) {
        if let State::Offered(attempt) = &self.state
            && attempt.negotiation == decline.negotiation
        {
            self.own = self.own.later(decline.above);
            self.start_over(now);
        }
    }

    fn withdrawn(&mut self, withdraw: &Withdraw, now: Now) {
        let answers = matches!(&self.state, State::Offered(attempt)
            if withdraw.declines == Some(attempt.negotiation));
        let stale = self.is_stale(withdraw.round);
        if stale && !answers {
            return;
        }
        if !stale {
            self.hear(withdraw.round);
        }
        self.abandon();
        if self.wish == Wish::Wanted {
            self.state = State::Waiting {
                until: now.elapsed + WITHDRAWN_TIME,
                why: Why::Withdrawn,
            };
        }
    }

    fn is_stale(&self, round: Round) -> bool {
        self.heard.is_some_and(|heard| !round.is_after(heard))
    }

    fn hear(&mut self, round: Round) {
        self.heard = Some(round);
        // What waits for an offer that is stale now waits for nothing.
        self.early.take_if(|(early, _)| round.is_after(early.round));
    }

    /// Adds candidates to the peer's description, those that belong to it.
    fn add(&mut self, candidates: Vec<(u64, String)>) {
        let Some(negotiation) = self.state.attempt().map(|attempt| attempt.negotiation) else {
            return;
        };
        let made_by = self.remote_run();
        let matches = |run| made_by == Some(run) || !self.rules.keeps(Rule::CandidatesMatch);
        let add = |(_, candidate)| Output::AddCandidate {
            negotiation,
            candidate,
        };
        self.outputs.extend(
            candidates
                .into_iter()
                .filter(|(run, _)| matches(*run))
                .map(add),
        );
    }
}
