//! A connection as a negotiator sees it: what RFC 8829 lets be done with descriptions, and which of
//! two fit each other.

use std::fmt;
use std::str::FromStr;

use outlive_core::Negotiation;

/// Names a connection or a description in the whole world. Fits into the text of a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tag(pub(crate) u32);

/// A session description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Description {
    /// Its own name: that of its ICE credentials.
    pub(crate) tag: Tag,
    /// The connection that made it.
    pub(crate) connection: Tag,
    /// The description it answers.
    pub(crate) answers: Option<Tag>,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answers = self.answers.map_or(0, |tag| tag.0);
        write!(f, "{} {} {answers}", self.tag.0, self.connection.0)
    }
}

impl FromStr for Description {
    type Err = Misuse;

    fn from_str(text: &str) -> Result<Self, Misuse> {
        let mut numbers = text.split(' ').map(|number| number.parse::<u32>());
        let mut next = || numbers.next().and_then(Result::ok).ok_or(Misuse::Garbage);
        Ok(Self {
            tag: Tag(next()?),
            connection: Tag(next()?),
            answers: Some(next()?).filter(|tag| *tag > 0).map(Tag),
        })
    }
}

/// What a real connection would answer with an error, or worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Misuse {
    /// An offer is made where one is pending, or a restart where there is nothing to restart.
    OfferNow,
    /// An offer is applied while our own is pending.
    Glare,
    /// An offer of another connection than the one that this one is paired with.
    OtherConnection,
    /// An answer where no offer is pending, or not that one.
    OtherOffer,
    /// A candidate before there is a remote description.
    CandidateTooEarly,
    /// A candidate of another description than the remote one.
    OtherCandidate,
    /// A description that is none.
    Garbage,
}

/// A peer connection.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    tag: Tag,
    /// Both descriptions of the last negotiation that was completed.
    pair: Option<[Description; 2]>,
    /// Our offer that is not answered.
    pending: Option<Description>,
    /// The negotiation of the last description that was made.
    pub(crate) last: Negotiation,
    pub(crate) up: bool,
    /// How often its descriptions were replaced.
    pub(crate) restarts: u32,
}

impl Connection {
    pub(crate) const fn new(tag: Tag, last: Negotiation) -> Self {
        Self {
            tag,
            pair: None,
            pending: None,
            last,
            up: false,
            restarts: 0,
        }
    }

    pub(crate) fn create_offer(
        &mut self,
        tag: Tag,
        negotiation: Negotiation,
        restart: bool,
    ) -> Result<Description, Misuse> {
        if self.pending.is_some() || restart != self.pair.is_some() {
            return Err(Misuse::OfferNow);
        }
        let offer = Description {
            tag,
            connection: self.tag,
            answers: None,
        };
        self.pending = Some(offer);
        self.last = negotiation;
        Ok(offer)
    }

    pub(crate) fn rollback(&mut self) {
        self.pending = None;
    }

    pub(crate) fn apply_offer(
        &mut self,
        tag: Tag,
        negotiation: Negotiation,
        offer: Description,
    ) -> Result<Description, Misuse> {
        if self.pending.is_some() {
            return Err(Misuse::Glare);
        }
        self.check_remote(offer)?;
        let answer = Description {
            tag,
            connection: self.tag,
            answers: Some(offer.tag),
        };
        self.pair([answer, offer]);
        self.last = negotiation;
        Ok(answer)
    }

    pub(crate) fn apply_answer(&mut self, answer: Description) -> Result<(), Misuse> {
        let Some(offer) = self.pending.take() else {
            return Err(Misuse::OtherOffer);
        };
        if answer.answers != Some(offer.tag) {
            return Err(Misuse::OtherOffer);
        }
        self.check_remote(answer)?;
        self.pair([offer, answer]);
        Ok(())
    }

    fn pair(&mut self, pair: [Description; 2]) {
        self.restarts += u32::from(self.pair.is_some());
        self.pair = Some(pair);
        self.up = false;
    }

    fn check_remote(&self, remote: Description) -> Result<(), Misuse> {
        match self.pair {
            Some([_, before]) if before.connection != remote.connection => {
                Err(Misuse::OtherConnection)
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn add_candidate(&self, of: Tag) -> Result<(), Misuse> {
        match self.pair {
            None => Err(Misuse::CandidateTooEarly),
            Some([_, remote]) if remote.tag != of => Err(Misuse::OtherCandidate),
            Some(_) => Ok(()),
        }
    }

    /// Whether two connections have each other's descriptions and nothing pending.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        let (Some([mine, theirs]), Some([others, ours])) = (self.pair, other.pair) else {
            return false;
        };
        self.pending.is_none() && other.pending.is_none() && mine == ours && theirs == others
    }
}
