//! Which segments may be copies of what came before, under another epoch (I2): their messages are marked.
//!
//! What came under a later epoch names its first place, and is noted there. Of an epoch that was
//! forgotten nothing is known, so all that comes under it may be a copy; as little is known of one that was
//! never heard of, once there are as many as are remembered. A Resume tells the two apart, in the newest
//! packet of all: a peer says it under the epoch that it has, and not under one that it has left.

use std::cmp::Reverse;

use super::Engine;
use super::event::Violation;
use crate::record::RxChannel;
use crate::wire::frame::First;
use crate::{ChannelId, Epoch, Seq};

/// How many ranges of seqs seen under another epoch are remembered of a session, all of which each of
/// its writes holds. Of one more, what lies between the two that are nearest counts as seen too.
const SEEN_RUNS: usize = 1_024;

impl Engine {
    /// A segment of `epoch` may have come under an earlier one, in this place.
    pub(super) fn note_first(
        &mut self,
        epoch: Epoch,
        channel: ChannelId,
        first: First,
    ) -> Result<(), Violation> {
        // Not a reset: the peer speaks of an epoch that it has left. Where there is no place to note it,
        // there are as many streams as are remembered, and a copy that comes under that epoch later begins
        // one more.
        let doubtful = self.may_be_forgotten(first.epoch);
        let known = self.known_stream(first.epoch);
        let Ok(earlier) = known.map_or_else(|| self.begin_earlier_stream(first.epoch, epoch), Ok)
        else {
            return Ok(());
        };
        let seen = &mut self.channel_of(earlier, channel, doubtful)?.seen;
        seen.insert(first.seq);
        self.bound_seen();
        Ok(())
    }

    /// Takes the two nearest ranges for one if there are too many.
    fn bound_seen(&mut self) {
        let streams = self.live.streams.iter_mut();
        let channels = streams.flat_map(|stream| stream.channels.values_mut());
        let seen: Vec<_> = channels.map(|rx| &mut rx.seen).collect();
        if seen.iter().map(|seen| seen.runs()).sum::<usize>() <= SEEN_RUNS {
            return;
        }
        let gaps = seen
            .into_iter()
            .filter_map(|seen| Some((seen.narrowest_gap()?, seen)));
        let nearest = gaps.max_by_key(|((from, to), _)| Reverse(to.0.saturating_sub(from.0)));
        if let Some(((from, to), seen)) = nearest {
            seen.insert_run(from, to);
        }
    }

    /// The peer has named this epoch as its own: what comes of it from here on is new.
    pub(super) fn trust_stream(&mut self, epoch: Epoch) {
        let streams = self.live.streams.iter_mut();
        for stream in streams.filter(|stream| stream.epoch == epoch) {
            for rx in stream.channels.values_mut().filter(|rx| is_doubtful(rx)) {
                rx.seen.remove_run(rx.next, Seq(u64::MAX));
                self.writes.touch();
            }
        }
    }
}

/// A channel of which anything may be a copy.
pub(super) fn doubtful_channel() -> RxChannel {
    let mut rx = RxChannel::default();
    rx.seen.insert_run(Seq::FIRST, Seq(u64::MAX));
    rx
}

/// Whether anything that comes may be a copy.
pub(super) fn is_doubtful(rx: &RxChannel) -> bool {
    rx.seen.contains(Seq(u64::MAX).previous())
}
