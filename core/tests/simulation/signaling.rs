//! What two peers negotiate over channel 0 while everything fails: a negotiator and a connection for
//! each. Everything that a signal goes through is that of other messages, and checked like them.

use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::Ticket;
use outlive_core::negotiator::{Negotiator, Output, Rule, Status};
use outlive_core::wire::signal::Signal;
use outlive_core::{ChannelId, Entropy, Negotiation, Round};

use crate::connection::{Connection, Description, Misuse, Tag};
use crate::world::{Fault, World};

struct End {
    negotiator: Option<Negotiator>,
    connection: Option<Connection>,
    /// Of which start of the process it is, and after how many losses of the store.
    of: (u32, u32),
    /// Starts since the last of those losses, which took the number of the start with it.
    starts: u32,
    /// Signals that were sent, and what they are part of.
    sent: Vec<(Negotiation, Ticket, u64)>,
    arrived: Vec<Bytes>,
}

/// The negotiation of two peers.
pub(crate) struct Signaling {
    ends: [End; 2],
    tags: u32,
    broken: Option<Rule>,
    /// How often they found each other.
    pub(crate) met: u32,
}

impl Signaling {
    /// A message came on the channel: a number, and a signal.
    pub(crate) fn arrived(&mut self, who: usize, payload: &Bytes) {
        self.ends[who].arrived.push(payload.slice(8..));
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        let negotiators = self.ends.iter().filter_map(|end| end.negotiator.as_ref());
        negotiators.filter_map(Negotiator::deadline).min()
    }

    fn fit(&self) -> bool {
        match &self.ends {
            [
                End {
                    connection: Some(one),
                    ..
                },
                End {
                    connection: Some(other),
                    ..
                },
            ] => one.fits(other),
            _ => false,
        }
    }

    fn is_up(&self) -> bool {
        let status = |end: &End| end.negotiator.as_ref().map(Negotiator::status);
        let [one, other] = [0, 1].map(|who: usize| status(&self.ends[who]));
        matches!(one, Some(Status::Up(_))) && one == other && self.fit()
    }

    fn tag(&mut self) -> Tag {
        self.tags += 1;
        Tag(self.tags)
    }

    /// A connection does what it is asked to.
    fn work(&mut self, who: usize, output: Output, world: &World) -> Result<(), Misuse> {
        let tag = self.tag();
        let fresh = self.tag();
        let end = &mut self.ends[who];
        let connection = |end: &mut End, negotiation| {
            let made = || Connection::new(fresh, negotiation);
            end.connection.take().unwrap_or_else(made)
        };
        match output {
            Output::Reset => end.connection = None,
            Output::Rollback => {
                if let Some(connection) = &mut end.connection {
                    connection.rollback();
                }
            }
            Output::CreateOffer {
                negotiation,
                restart,
            } => {
                let mut connection = connection(end, negotiation);
                let offer = connection.create_offer(tag, negotiation, restart);
                end.connection = Some(connection);
                end.described(negotiation, offer?, world);
            }
            Output::ApplyOffer { negotiation, sdp } => {
                let mut connection = connection(end, negotiation);
                let answer = connection.apply_offer(tag, negotiation, sdp.parse()?);
                end.connection = Some(connection);
                end.described(negotiation, answer?, world);
            }
            Output::ApplyAnswer { sdp, .. } => {
                let answer = sdp.parse()?;
                let connection = end.connection.as_mut().ok_or(Misuse::OtherOffer)?;
                connection.apply_answer(answer)?;
            }
            Output::AddCandidate { candidate, .. } => {
                let of = candidate.parse().map_err(|_| Misuse::Garbage)?;
                let connection = end.connection.as_ref().ok_or(Misuse::CandidateTooEarly)?;
                connection.add_candidate(Tag(of))?;
            }
            Output::Send { .. } | Output::Cancel { .. } => {}
        }
        Ok(())
    }
}

impl End {
    const fn new() -> Self {
        Self {
            negotiator: None,
            connection: None,
            of: (0, 0),
            starts: 0,
            sent: Vec::new(),
            arrived: Vec::new(),
        }
    }

    fn described(&mut self, negotiation: Negotiation, description: Description, world: &World) {
        if let Some(negotiator) = &mut self.negotiator {
            negotiator.found(negotiation, description.tag.0.to_string());
            negotiator.described(negotiation, description.to_string(), world.now);
        }
    }
}

impl World {
    /// From now on both want a connection, too; maybe one of the rules for that is broken.
    pub(crate) fn negotiate(&mut self, broken: Option<Rule>) {
        self.signaling = Some(Signaling {
            ends: [End::new(), End::new()],
            tags: 0,
            broken,
            met: 0,
        });
    }

    /// The negotiators and connections do what there is to do.
    pub(crate) fn signal(&mut self) {
        let Some(mut signaling) = self.signaling.take() else {
            return;
        };
        for who in 0..2 {
            let broken = signaling.broken;
            self.start_negotiator(&mut signaling.ends[who], who, broken);
            let now = self.now;
            let end = &mut signaling.ends[who];
            if let Some(negotiator) = &mut end.negotiator {
                for bytes in end.arrived.drain(..) {
                    let signal = Signal::decode(&bytes).expect("made here");
                    negotiator.receive(signal.expect("of a known kind"), now);
                }
                negotiator.tick(now);
            }
            while let Some(output) = signaling.ends[who]
                .negotiator
                .as_mut()
                .and_then(Negotiator::poll)
            {
                self.log(|| format!("  {who} {output:?}"));
                self.carry_out(&mut signaling, who, output);
            }
        }
        self.connect_ends(&mut signaling);
        self.signaling = Some(signaling);
    }

    fn start_negotiator(&mut self, end: &mut End, who: usize, broken: Option<Rule>) {
        let peer = &self.peers[who];
        if peer.engine.is_none() {
            end.negotiator = None;
            end.connection = None;
            end.arrived.clear();
            return;
        }
        let of = (peer.starts, self.rolls[who]);
        if end.negotiator.is_some() && end.of == of {
            return;
        }
        end.starts = if end.of.1 == of.1 { end.starts + 1 } else { 1 };
        let other = peer.other;
        let me = self.peers[1 - who].other;
        let entropy = Entropy::from_seed(self.random.seed());
        let mut negotiator = Negotiator::new(me, other, Round::at_start(end.starts), entropy);
        if let Some(rule) = broken {
            negotiator.break_rule(rule);
        }
        negotiator.want(self.now);
        end.negotiator = Some(negotiator);
        end.connection = None;
        end.sent.clear();
        end.of = of;
    }

    fn carry_out(&mut self, signaling: &mut Signaling, who: usize, output: Output) {
        match output {
            Output::Send { signal, ttl } => {
                let number = self.next_number().to_le_bytes();
                let payload = [&number[..], &signal.to_bytes()].concat();
                let sent = self.submit(who, ChannelId::SIGNALING, payload.into(), Some(ttl));
                if let (Some(negotiation), Some((ticket, number))) = (signal.negotiation(), sent) {
                    signaling.ends[who].sent.push((negotiation, ticket, number));
                }
            }
            Output::Cancel { negotiation } => {
                let (cancelled, kept) = std::mem::take(&mut signaling.ends[who].sent)
                    .into_iter()
                    .partition(|(of, ..)| *of == negotiation);
                signaling.ends[who].sent = kept;
                let cancelled: Vec<(Negotiation, Ticket, u64)> = cancelled;
                for (_, ticket, number) in cancelled {
                    let engine = self.peers[who].engine.as_mut();
                    if engine.is_some_and(|engine| engine.cancel(ticket, self.now)) {
                        self.exempt.insert(number);
                    }
                }
                self.peers[who].pump();
            }
            output => {
                if let Err(misuse) = signaling.work(who, output, self) {
                    self.log(|| format!("  {who} {misuse:?}"));
                    self.fault(Fault::Misused);
                }
            }
        }
    }

    /// Connections find each other after a while, and notice after a while when the other is gone.
    fn connect_ends(&mut self, signaling: &mut Signaling) {
        let fit = signaling.fit();
        let up = |end: &End| end.connection.as_ref().is_some_and(|c| c.up);
        if signaling.ends.iter().all(|end| up(end) == fit) || !self.random.chance(30) {
            return;
        }
        signaling.met += u32::from(fit);
        for end in &mut signaling.ends {
            if let (Some(connection), Some(negotiator)) = (&mut end.connection, &mut end.negotiator)
                && connection.up != fit
            {
                connection.up = fit;
                if fit {
                    negotiator.up(connection.last, self.now);
                } else {
                    negotiator.down(connection.last, self.now);
                }
            }
        }
    }

    /// Everything works: both have to end up with one connection.
    pub(crate) fn settle_signaling(&mut self) {
        for _ in 0..4_000 {
            if self.signaling.as_ref().is_some_and(Signaling::is_up) {
                return;
            }
            self.round();
        }
        self.fault(Fault::Apart);
    }
}
