//! What an implementation does that breaks a rule.

use super::Rule;
use crate::engine::Engine;
use crate::engine::event::Violation;
use crate::engine::segments::Part;
use crate::record::{InboxBody, RxChannel};
use crate::wire::frame::Data;
use crate::{ChannelId, Epoch, Seq};

impl Engine {
    /// Breaks a rule from here on.
    #[doc(hidden)]
    pub fn break_rule(&mut self, rule: Rule) {
        self.rules.broken = Some(rule);
    }

    /// Takes a segment once more, or before its turn. Returns whether it was taken so.
    pub(in crate::engine) fn take_against_rules(&mut self, data: &Data) -> Result<bool, Violation> {
        let &Data {
            epoch,
            channel,
            seq,
            ..
        } = data;
        let place = self.place(epoch, channel)?;
        let next = place.map_or(Seq::FIRST, |rx| rx.next);
        let is_held = place.is_some_and(|rx| rx.held.contains(seq));
        let part = Part {
            id: data.id,
            index: data.index,
            count: data.count,
            redelivered: data.again.is_some(),
        };
        if !self.rules.keeps(Rule::Dedup) && seq < next {
            let body = InboxBody::Inline(data.payload.clone());
            self.deliver(epoch, channel, seq, part, body, 0);
            return Ok(true);
        }
        let early = seq > next && !is_held && self.has_room(epoch, channel, next, seq);
        if !self.rules.keeps(Rule::WaitInOrder) && early {
            self.receiving(epoch, channel)?.next = seq;
            self.accept(epoch, channel, part, Some(data.payload.clone()), 0);
            return Ok(true);
        }
        Ok(false)
    }

    /// Counts the segments of a channel from the beginning again, because of a Resume.
    pub(in crate::engine) fn reset_counters_against_rules(
        &mut self,
        epoch: Epoch,
        channel: ChannelId,
    ) {
        if self.rules.keeps(Rule::ResumeKeepsCounters) {
            return;
        }
        let mut streams = self.live.streams.iter_mut();
        let stream = streams.find(|stream| stream.epoch == epoch);
        if let Some(rx) = stream.and_then(|stream| stream.channels.get_mut(&channel)) {
            *rx = RxChannel::default();
        }
    }
}
