//! How an engine begins: with a session as the store holds it, or a new one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::Engine;
use super::event::{Event, Output};
use super::links::Links;
use super::measuring::Gauge;
use super::outbox::Sending;
use super::rules::Rules;
use super::sealing::Sealing;
use super::streams::Held;
use super::timers::Probe;
use super::writes::Writes;
use crate::limits::InboxLimits;
use crate::record::{Key, Record, RecordError, SegmentRecord, Session};
use crate::{Entropy, Identity, Now, PeerId};

/// A session as it was read from the store.
#[derive(Clone, Default)]
pub struct Stored {
    /// The value under [`Key::Session`], if there is one.
    pub session: Option<Bytes>,
    /// The records in [`Key::all_segments`].
    pub segments: Vec<(Bytes, Bytes)>,
}

/// Shows how much there is, not what: records hold keys and payloads.
impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored")
            .field("session", &self.session.as_ref().map(Bytes::len))
            .field("segments", &self.segments.len())
            .finish()
    }
}

impl Engine {
    /// The engine of the session of `identity` with `peer`, as it is in the store; a new session if it is not.
    ///
    /// `start` is the number of this start of the process, which only grows; `entropy` must come
    /// from fresh randomness at every start.
    ///
    /// # Errors
    /// [`RecordError`] if what the store holds can't be used.
    pub fn open(
        identity: &Identity,
        peer: PeerId,
        start: u32,
        stored: &Stored,
        mut entropy: Entropy,
        now: Now,
    ) -> Result<Self, RecordError> {
        let (session, known) = match &stored.session {
            Some(bytes) => (Session::from_bytes(bytes)?, true),
            None => (Session::new(entropy.epoch()), false),
        };
        let mut held = BTreeMap::<_, BTreeMap<_, _>>::new();
        for (key, value) in &stored.segments {
            let Ok(Key::Segment(_, epoch, channel, seq)) = Key::of_peer(peer, key) else {
                continue;
            };
            let waits = session
                .stream(epoch)
                .and_then(|stream| stream.channels.get(&channel))
                .is_some_and(|rx| rx.held.contains(seq));
            if waits {
                let segment = Held::of(&SegmentRecord::from_bytes(value)?);
                held.entry((epoch, channel))
                    .or_default()
                    .insert(seq, segment);
            }
        }
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
        Ok(Self {
            outputs: outputs.collect(),
            peer,
            start,
            durable: session.clone(),
            live: session,
            stored: known,
            stopped: false,
            claimed: false,
            now,
            sealing,
            first_envelope: entropy.envelope(),
            entropy,
            rules: Rules::default(),
            writes: Writes::default(),
            sending,
            weights: BTreeMap::new(),
            links: Links::default(),
            gauge: Gauge::default(),
            asked: VecDeque::new(),
            held,
            handed: BTreeMap::new(),
            done: BTreeMap::new(),
            committed: BTreeMap::new(),
            inbox_limits: InboxLimits::default(),
            parked: BTreeMap::new(),
            crowded: BTreeSet::new(),
            received: 0,
            listening: BTreeSet::new(),
            peer_listens: BTreeSet::new(),
            peer_closed: None,
            probe: Probe::default(),
            reading: None,
            read_last: None,
            tell_consumed: None,
            write_lazily: None,
        })
    }
}
