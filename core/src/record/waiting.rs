//! Of which streams the messages are that wait in the inboxes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ChannelId, Epoch};

/// How many messages of each stream wait for the app. Those that came while nobody counted them are in
/// no count: then it is not known of which streams the rest of an inbox is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting(BTreeMap<(ChannelId, Epoch), u64>);

impl Waiting {
    /// One more has come.
    pub(crate) fn came(&mut self, channel: ChannelId, epoch: Epoch) {
        let count = self.0.entry((channel, epoch)).or_default();
        *count = count.saturating_add(1);
    }

    /// The app is done with one.
    pub(crate) fn committed(&mut self, channel: ChannelId, epoch: Epoch) {
        if let Some(count) = self.0.get_mut(&(channel, epoch)) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(&(channel, epoch));
            }
        }
    }

    /// Whether, of as many `messages` as wait in the inbox of the channel, none is of this stream.
    pub(crate) fn is_none(&self, channel: ChannelId, epoch: Epoch, messages: u64) -> bool {
        let of_channel = (channel, Epoch(0))..=(channel, Epoch(u64::MAX));
        let counts = self.0.range(of_channel).map(|(_, count)| *count);
        // No count is ever above what there is, so where they sum up to it each of them is right.
        let counted = counts.fold(0, u64::saturating_add);
        counted >= messages && !self.0.contains_key(&(channel, epoch))
    }
}
