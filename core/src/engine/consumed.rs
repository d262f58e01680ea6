//! What the peer's app has committed: as it is heard, over the epochs of ours that it is told under.
//!
//! A position is spoken of under the epoch that it was delivered under. One number is enough: as long as
//! messages of an earlier stream wait for its app, a peer says 0 of those behind it (see
//! [`Session::consumed`](crate::record::Session)), and what it says otherwise stands for all before it.
//! That is so of what it has lost too: nobody will commit that any more.

use super::Engine;
use crate::record::OutChannel;
use crate::wire::frame::Received;
use crate::{ChannelId, Epoch, Position, Seq};

impl Engine {
    /// Of an earlier stream of ours, all that still counts is what the app has committed of it.
    pub(super) fn on_received_earlier(&mut self, epoch: Epoch, received: &[Received]) {
        for one in received {
            self.note_consumed(epoch, one.channel, one.consumed);
        }
    }

    /// The peer's app has committed all below `consumed` of our stream `epoch`.
    pub(super) fn note_consumed(&mut self, epoch: Epoch, channel: ChannelId, consumed: Seq) {
        if consumed < Seq::FIRST {
            return;
        }
        let Some(out) = self.live.out.get(&channel) else {
            return;
        };
        let Some((base, end)) = self.delivered_under(epoch, channel, out) else {
            return;
        };
        // A peer can't have committed what it has not acknowledged.
        let consumed = base.plus(consumed.0).min(end);
        let Some(out) = self.live.out.get_mut(&channel) else {
            return;
        };
        if consumed > out.consumed {
            out.consumed = consumed;
            self.writes.touch();
            self.probe.progress(self.now.elapsed);
        }
    }

    /// The position that was seq 0 under an epoch of ours, and one past the last that was delivered
    /// under it: what was not began anew under the next.
    fn delivered_under(
        &self,
        epoch: Epoch,
        channel: ChannelId,
        out: &OutChannel,
    ) -> Option<(Position, Position)> {
        if epoch == self.live.epoch {
            return Some((out.base, out.low));
        }
        let mut past = self.live.past.iter();
        let of = past.find(|past| past.epoch == epoch)?;
        let next = past.find_map(|next| next.channels.get(&channel));
        let next = next.map_or(out.base, |next| next.base);
        Some((of.channels.get(&channel)?.base, next.next()))
    }
}
