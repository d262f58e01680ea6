//! What negotiators ask of their connections and of the channel, and how that is done.

use outlive_core::Negotiation;
use outlive_core::negotiator::Output;
use outlive_core::wire::signal::Signal;

use super::{Fault, Letter, World};
use crate::connection::{Connection, Description, Tag};

impl World {
    /// Moves what a negotiator wants done to where it is done.
    pub(super) fn collect(&mut self, at: usize) {
        while let Some(output) = self.ends[at].negotiator.poll() {
            match output {
                Output::Send { signal, .. } => {
                    if matches!(signal, Signal::Offer(_) | Signal::Withdraw(_)) {
                        self.ends[at].made += 1;
                    }
                    let bytes = signal.to_bytes();
                    assert_eq!(Signal::decode(&bytes), Ok(Some(signal.clone())));
                    let letter = Letter {
                        signal,
                        made: self.ends[at].made,
                        lost: self.ends[at].lost,
                    };
                    self.ends[1 - at].inbound.push_back(letter);
                }
                Output::Cancel { negotiation } => {
                    if self.cancels {
                        self.ends[1 - at]
                            .inbound
                            .retain(|letter| letter.signal.negotiation() != Some(negotiation));
                    }
                }
                output => {
                    if self.ends[at].forbids && output != Output::Reset {
                        self.fault(Fault::Forbidden(at));
                    }
                    self.ends[at].work.push_back(output);
                }
            }
        }
    }

    fn tag(&mut self) -> Tag {
        self.tags += 1;
        Tag(self.tags)
    }

    pub(super) fn work(&mut self, at: usize) {
        let Some(output) = self.ends[at].work.pop_front() else {
            return;
        };
        if self.ends[at].failed && output != Output::Reset {
            return;
        }
        let (negotiation, done) = match output {
            Output::Reset => {
                self.ends[at].failed = false;
                self.ends[at].connection = None;
                return;
            }
            Output::Rollback => {
                if let Some(connection) = &mut self.ends[at].connection {
                    connection.rollback();
                }
                return;
            }
            Output::CreateOffer {
                negotiation,
                restart,
            } => {
                let tag = self.tag();
                let connection = self.connection(at, negotiation);
                let offer = connection.create_offer(tag, negotiation, restart);
                let done = offer.map(|offer| self.described(at, negotiation, offer));
                (negotiation, done)
            }
            Output::ApplyOffer { negotiation, sdp } => {
                let tag = self.tag();
                let connection = self.connection(at, negotiation);
                let answer = sdp
                    .parse()
                    .and_then(|offer| connection.apply_offer(tag, negotiation, offer));
                let done = answer.map(|answer| self.described(at, negotiation, answer));
                (negotiation, done)
            }
            Output::ApplyAnswer { negotiation, sdp } => {
                let connection = self.connection(at, negotiation);
                let done = sdp
                    .parse()
                    .and_then(|answer| connection.apply_answer(answer));
                (negotiation, done)
            }
            Output::AddCandidate {
                negotiation,
                candidate,
            } => {
                let connection = self.connection(at, negotiation);
                let of = candidate.parse().map(Tag);
                let done = of.map_or(Ok(()), |of| connection.add_candidate(of));
                if self.hostile {
                    return;
                }
                (negotiation, done)
            }
            Output::Send { .. } | Output::Cancel { .. } => return,
        };
        match done {
            Ok(()) => {}
            Err(_) if self.hostile => self.fail(at, negotiation),
            Err(misuse) => self.fault(Fault::Misuse(at, misuse)),
        }
    }

    pub(super) fn fail(&mut self, at: usize, negotiation: Negotiation) {
        self.ends[at].failed = true;
        self.ends[at].negotiator.failed(negotiation, self.now);
        self.collect(at);
    }

    fn connection(&mut self, at: usize, negotiation: Negotiation) -> &mut Connection {
        if self.ends[at].connection.is_none() {
            let tag = self.tag();
            self.ends[at].connection = Some(Connection::new(tag, negotiation));
        }
        self.ends[at].connection.as_mut().expect("just made")
    }

    /// A description was made; one candidate is found before that is told, one after.
    fn described(&mut self, at: usize, negotiation: Negotiation, description: Description) {
        let negotiator = &mut self.ends[at].negotiator;
        let candidate = description.tag.0.to_string();
        negotiator.found(negotiation, candidate.clone());
        negotiator.described(negotiation, description.to_string(), self.now);
        negotiator.found(negotiation, candidate);
        self.collect(at);
    }
}
