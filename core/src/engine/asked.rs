//! Questions: Resumes whose answers are awaited, and what such an answer shows to be missing. The numbers in
//! brackets are those of the rules in section 10 of `docs/PROTOCOL.md`.

use std::collections::BTreeMap;

use super::Engine;
use super::pump::lane;
use crate::limits::RESUMES_OPEN;
use crate::link::LinkClass;
use crate::runs::RunSet;
use crate::transport::Lane;
use crate::wire::frame::Received;
use crate::{ChannelId, Generation, Position, ResumeId};

/// A Resume whose answer is awaited, and what had been sent before it on its link.
#[derive(Debug)]
pub(super) struct Asked {
    id: ResumeId,
    /// Whether it went to the peer itself, past what waits on the lane of files.
    direct: bool,
    sent: BTreeMap<ChannelId, RunSet<Position>>,
    low: BTreeMap<ChannelId, Position>,
}

impl Asked {
    /// Whether an answer that ends here tells that the peer has lost what it had before the question.
    pub(super) fn shows_loss(&self, channel: ChannelId, next: Position) -> bool {
        self.low.get(&channel).is_some_and(|low| next < *low)
    }
}

impl Engine {
    /// Notes what was sent before a Resume that leaves on this link. Returns whether there is the link.
    pub(super) fn ask(&mut self, generation: Generation, id: ResumeId) -> bool {
        let Some(link) = self.links.get(generation) else {
            return false;
        };
        let direct = link.is_direct();
        let mut sent = link.sent.clone();
        for (&channel, out) in &self.live.out {
            let sent = sent.entry(channel).or_default();
            if let LinkClass::Relayed(store) = link.class {
                out.custody
                    .iter()
                    .filter(|c| c.store == store)
                    .for_each(|c| sent.insert_all(&c.held));
            }
            if let Some(sending) = self.sending.get(&channel) {
                sent.insert_all(&sending.held);
            }
        }
        if self.asked.len() >= RESUMES_OPEN {
            self.asked.pop_front();
        }
        let low = self
            .live
            .out
            .iter()
            .map(|(&channel, out)| (channel, out.low))
            .collect();
        self.asked.push_back(Asked {
            id,
            direct,
            sent,
            low,
        });
        true
    }

    /// The question that is answered, if it is remembered and was not answered before.
    pub(super) fn asked_in(&mut self, id: ResumeId) -> Option<Asked> {
        let index = self.asked.iter().position(|asked| asked.id == id)?;
        self.asked.remove(index)
    }

    /// An answer shows what is missing of all that was sent before the question: that is sent
    /// again, wherever it was thought to be [5]. Not so what is behind the last that came of a file,
    /// as long as some of it comes: the question went past it.
    pub(super) fn void_missing(&mut self, asked: &Asked, received: &[Received]) {
        for (&channel, sent) in &asked.sent {
            let Some(out) = self.live.out.get_mut(&channel) else {
                continue;
            };
            let mut missing = sent.clone();
            let (mut next, mut behind) = (out.low, out.low);
            if let Some(one) = received.iter().find(|one| one.channel == channel) {
                // A full inbox: what it lacks is parked in its mailbox, or waits for credit.
                if one.limit <= one.next {
                    continue;
                }
                next = next.max(out.position(one.next));
                behind = next;
                for run in &one.ranges {
                    let first = out.position(run.first);
                    let end = first.plus(run.count);
                    missing.remove_run(first, end);
                    behind = behind.max(end);
                }
            }
            missing.remove_below(next);
            if asked.direct
                && lane(channel) == Lane::Bulk
                && let Some(sending) = self.sending.get_mut(&channel)
                && sending.answered.replace(next) != Some(next)
            {
                missing.remove_run(behind, Position(u64::MAX));
            }
            if missing.is_empty() {
                continue;
            }
            for custody in &mut out.custody {
                custody.held.remove_all(&missing);
            }
            for link in self.links.iter_mut() {
                if let Some(sent) = link.sent.get_mut(&channel) {
                    sent.remove_all(&missing);
                }
            }
            if let Some(sending) = self.sending.get_mut(&channel) {
                sending.held.remove_all(&missing);
            }
        }
    }
}
