//! What is on its way to a relay: kept until the relay has answered.

use std::time::Duration;

use crate::{ChannelId, MessageId, Position};

/// A packet handed to a relay and not answered.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// The segments in it.
    pub(super) runs: Vec<(ChannelId, Position)>,
    /// The first of each channel, with its message; at most one a channel.
    pub(super) heads: Vec<(ChannelId, Position, MessageId)>,
    /// When it left, if there is something of a file in it.
    pub(super) bulk: Option<Duration>,
}

impl Flight {
    /// Notes a segment of a message that is still to be delivered.
    pub(super) fn note_head(&mut self, channel: ChannelId, position: Position, id: MessageId) {
        if self.heads.iter().all(|(of, ..)| *of != channel) {
            self.heads.push((channel, position, id));
        }
    }

    /// What it carried of these counts no more.
    pub(super) fn forget(&mut self, of: ChannelId, first: Position, end: Position) {
        let kept = |channel, at: &Position| channel != of || !(first..end).contains(at);
        self.runs.retain(|(channel, at)| kept(*channel, at));
        self.heads.retain(|(channel, at, _)| kept(*channel, at));
    }

    /// What it carried counts no more.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.heads.clear();
    }
}
