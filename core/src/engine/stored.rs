//! How an engine begins: with a session as the store holds it, or a new one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use super::Engine;
use super::event::{Event, Output};
use super::hands::Hands;
use super::links::Links;
use super::measuring::Gauge;
use super::outbox::Sending;
use super::parking::Crowded;
use super::rules::Rules;
use super::sealing::Sealing;
use super::segments::Held;
use super::timers::Probe;
use super::unsaid::Unsaid;
use super::writes::Writes;
use crate::limits::InboxLimits;
use crate::record::{Key, Record, RecordError, SegmentRecord, Session};
use crate::{ChannelId, Entropy, Epoch, Identity, Now, PeerId, Seq};

/// A session as it was read from the store; one that is not there is a new one.
#[derive(Clone, Default)]
pub struct Stored {
    session: Option<Session>,
    held: BTreeMap<(Epoch, ChannelId), BTreeMap<Seq, Held>>,
}

impl Stored {
    /// With the value under [`Key::Session`], if there is one. What waits out of its turn is in
    /// [`segments`](Self::segments), and is to be [read](Self::read) too.
    ///
    /// # Errors
    /// [`RecordError`] if it can't be used.
    pub fn new(session: Option<&[u8]>) -> Result<Self, RecordError> {
        Ok(Self {
            session: session.map(Session::from_bytes).transpose()?,
            held: BTreeMap::new(),
        })
    }

    /// Where the segments lie that wait out of their turn. Those of whole messages lie elsewhere: an
    /// inbox may hold far more of them than fits into memory.
    #[must_use]
    pub fn segments(&self, peer: PeerId) -> Vec<Range<Bytes>> {
        let streams = self.session.iter().flat_map(|session| &session.streams);
        let channels = streams.flat_map(|stream| {
            let channels = stream.channels.iter();
            channels.map(|(channel, rx)| (stream.epoch, *channel, rx))
        });
        channels
            .filter_map(|(epoch, channel, rx)| {
                let (first, _) = rx.held.iter().next()?;
                let (_, end) = rx.held.iter().last()?;
                Some(Key::segments(peer, epoch, channel, first, end))
            })
            .collect()
    }

    /// Notes what has to be known of segments: not their payloads.
    ///
    /// # Errors
    /// [`RecordError`] if one can't be used.
    pub fn read(&mut self, peer: PeerId, rows: &[(Bytes, Bytes)]) -> Result<(), RecordError> {
        for (key, value) in rows {
            let Ok(Key::Segment(_, epoch, channel, seq)) = Key::of_peer(peer, key) else {
                continue;
            };
            let stream = self.session.as_ref().and_then(|of| of.stream(epoch));
            let rx = stream.and_then(|stream| stream.channels.get(&channel));
            if rx.is_some_and(|rx| rx.held.contains(seq)) {
                let segment = Held::of(&SegmentRecord::from_bytes(value)?);
                let of_channel = self.held.entry((epoch, channel)).or_default();
                of_channel.insert(seq, segment);
            }
        }
        Ok(())
    }
}

/// Shows how much there is, not what: records hold keys.
impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let held: usize = self.held.values().map(BTreeMap::len).sum();
        f.debug_struct("Stored")
            .field("known", &self.session.is_some())
            .field("held", &held)
            .finish()
    }
}

impl Engine {
    /// The engine of the session of `identity` with `peer`, as it is in the store; a new session if it is not.
    ///
    /// `start` is the number of this start of the process, which only grows; `entropy` must come
    /// from fresh randomness at every start.
    #[must_use]
    pub fn open(
        identity: &Identity,
        peer: PeerId,
        start: u32,
        stored: Stored,
        mut entropy: Entropy,
        now: Now,
    ) -> Self {
        let Stored { session, held } = stored;
        let known = session.is_some();
        let session = session.unwrap_or_else(|| Session::new(entropy.epoch()));
        let sending = session
            .out
            .iter()
            .map(|(&channel, out)| (channel, Sending::new(out.next)))
            .collect();
        let sealing = Sealing::new(identity, &session.keys, &mut entropy);
        // An app that did not live to hear of these hears of them now.
        let outputs = session.gaps().map(|(channel, gap)| {
            Output::Event(Event::Gap {
                channel,
                epoch: gap.epoch,
                first: gap.first,
                last: gap.last,
            })
        });
        Self {
            outputs: outputs.collect(),
            peer,
            start,
            durable: session.clone(),
            live: session,
            stored: known,
            stopped: false,
            now,
            sealing,
            first_envelope: entropy.envelope(),
            entropy,
            rules: Rules::default(),
            writes: Writes::default(),
            sending,
            weights: BTreeMap::new(),
            links: Links::default(),
            unsaid: Unsaid::default(),
            gauge: Gauge::default(),
            asked: VecDeque::new(),
            held,
            hands: Hands::default(),
            inbox_limits: InboxLimits::default(),
            parked: BTreeMap::new(),
            crowded: Crowded::default(),
            received: 0,
            listening: BTreeSet::new(),
            peer_listens: BTreeSet::new(),
            peer_closed: None,
            probe: Probe::default(),
            reading: None,
            read_last: None,
            tell_consumed: None,
            write_lazily: None,
        }
    }
}
