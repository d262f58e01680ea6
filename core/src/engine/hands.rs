//! What the app has in hand, and what it has committed since the engine was opened (I2).

use std::collections::BTreeMap;

use crate::{ChannelId, Epoch, Position, RunSet, Seq};

/// The hands of the app.
#[derive(Debug, Default)]
pub(super) struct Hands {
    /// What it has in hand of each stream and has not committed, with the seqs of its first and last
    /// segment.
    holding: BTreeMap<(Epoch, ChannelId), BTreeMap<Position, (Seq, Seq)>>,
    /// What it has committed.
    done: BTreeMap<ChannelId, RunSet<Position>>,
    /// One past the highest seq that it has committed of each stream.
    committed: BTreeMap<(Epoch, ChannelId), Seq>,
}

impl Hands {
    /// The app takes a message, of these seqs. Returns whether it has it: not if it has committed it.
    pub(super) fn take(
        &mut self,
        epoch: Epoch,
        channel: ChannelId,
        position: Position,
        seqs: (Seq, Seq),
    ) -> bool {
        let done = self.done.get(&channel);
        if done.is_some_and(|done| done.contains(position)) {
            return false;
        }
        let holding = self.holding.entry((epoch, channel)).or_default();
        holding.insert(position, seqs);
        true
    }

    /// Whether the app has a message in hand.
    pub(super) fn hold(&self, epoch: Epoch, channel: ChannelId, position: Position) -> bool {
        let holding = self.holding.get(&(epoch, channel));
        holding.is_some_and(|holding| holding.contains_key(&position))
    }

    /// The app commits a message. Returns its seqs if it had it in hand.
    pub(super) fn commit(
        &mut self,
        epoch: Epoch,
        channel: ChannelId,
        position: Position,
    ) -> Option<(Seq, Seq)> {
        let of = (epoch, channel);
        let holding = self.holding.get_mut(&of)?;
        let seqs = holding.remove(&position);
        if holding.is_empty() {
            self.holding.remove(&of);
        }
        let (first, last) = seqs?;
        self.done.entry(channel).or_default().insert(position);
        let end = last.next();
        let committed = self.committed.entry(of).or_insert(end);
        *committed = end.max(*committed);
        Some((first, last))
    }

    /// Where what is committed of a stream ends, if something is. Messages may be committed in any order,
    /// but come into the app's hands in theirs: what lies below is committed, if not since the engine was
    /// opened.
    pub(super) fn done_below(&self, epoch: Epoch, channel: ChannelId) -> Option<Seq> {
        let of = (epoch, channel);
        let committed = self.committed.get(&of)?;
        let lowest = self.holding.get(&of).and_then(|of| of.values().next());
        Some(lowest.map_or(*committed, |(first, _)| *first))
    }

    /// A stream is forgotten.
    pub(super) fn forget(&mut self, epoch: Epoch, channel: ChannelId) {
        self.committed.remove(&(epoch, channel));
    }
}
