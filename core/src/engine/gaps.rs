//! Going past what will not come: Skips, and the gaps they leave (I1).

use super::Engine;
use super::event::{Event, Violation};
use super::packets::Taken;
use super::parking::Parked;
use super::writes::After;
use crate::limits::HELD_SEGMENTS;
use crate::record::{Gap, SegmentRecord};
use crate::wire::frame::Skip;
use crate::{ChannelId, Digest, Epoch, Generation, Seq};

/// Whether a Skip up to `last` may be held until its turn comes.
pub(super) fn is_near(next: Seq, last: Seq) -> bool {
    last.0 < next.0.saturating_add(HELD_SEGMENTS)
}

impl Engine {
    pub(super) fn on_skip(
        &mut self,
        generation: Generation,
        skip: Skip,
    ) -> Result<Taken, Violation> {
        let Skip {
            epoch,
            channel,
            first,
            last,
            digest,
        } = skip;
        let place = self.place(epoch, channel)?;
        let next = place.map_or(Seq::FIRST, |rx| rx.next);
        let overlaps = |(from, end)| from <= last && first < end;
        let free = !place.is_some_and(|rx| rx.held.iter().any(overlaps));
        if first >= next && free && !self.has_turn(epoch, next, first, last) {
            return Ok(self.turn_away(epoch, channel, Parked::Skip { first, last }));
        }
        self.take_place(epoch, channel)?;
        if first == next && free {
            self.step_over(epoch, channel, last, Some(digest));
            self.drain(epoch, channel);
        } else if first > next && free {
            let record = SegmentRecord::Skip { last, digest };
            self.hold(epoch, channel, first, last, &record);
        }
        self.owe_ack(generation, epoch);
        Ok(Taken::Yes)
    }

    /// Nothing up to and with `last` will come any more, but what waits of it is still taken.
    pub(super) fn skip_to(&mut self, epoch: Epoch, channel: ChannelId, last: Seq, digest: Digest) {
        loop {
            let Ok(rx) = self.receiving(epoch, channel) else {
                return;
            };
            let next = rx.next;
            if next > last {
                break;
            }
            let waiting = self
                .held
                .get(&(epoch, channel))
                .and_then(|held| held.range(next..=last).next().map(|(&seq, _)| seq));
            match waiting {
                // What lies beyond waits until the digest below it is adopted.
                Some(seq) if seq == next => self.drain_below(epoch, channel, last.next()),
                Some(seq) => self.step_over(epoch, channel, seq.previous(), None),
                None => self.step_over(epoch, channel, last, None),
            }
        }
        if let Ok(rx) = self.receiving(epoch, channel)
            && rx.next == last.next()
        {
            rx.digest = digest;
        }
        self.writes.touch();
        self.drain(epoch, channel);
    }

    /// Goes past what will not come, and tells the app: at once, and in its place before the next
    /// message, for an app that does not live to hear the first.
    /// `skipped` is the sum over it: added, not adopted, so that a difference from before stays
    /// visible.
    pub(super) fn step_over(
        &mut self,
        epoch: Epoch,
        channel: ChannelId,
        last: Seq,
        skipped: Option<Digest>,
    ) {
        let Ok(rx) = self.receiving(epoch, channel) else {
            return;
        };
        let first = rx.next;
        rx.next = last.next();
        rx.held.remove_below(last.next());
        if let Some(skipped) = skipped {
            rx.digest = rx.digest.plus(skipped);
        }
        let partial = rx.partial.take();
        let start = partial.map_or(first, |partial| partial.first);
        rx.gap = Some(Gap {
            epoch,
            first: rx.gap.map_or(start, |gap| gap.first),
            last,
        });
        rx.pass_gap();
        // A message that has lost a part is missing as a whole.
        self.delete_segments(epoch, channel, start, first);
        self.writes.touch();
        self.defer(After::Event(Event::Gap {
            channel,
            epoch,
            first: start,
            last,
        }));
    }
}
