//! Who has what: Resume and Ack, as they are said and as they are heard.
//!
//! Both are drawn from the record in the store (I4) and neither ever writes a counter (I8). The
//! numbers in brackets are those of the rules in section 10 of `docs/PROTOCOL.md`.

use super::Engine;
use super::asked::Asked;
use super::event::Violation;
use super::outbox::PendingAck;
use super::overtaken::{Sealed, Word};
use super::rules::Rule;
use super::writes::After;
use crate::limits::{ACK_ALL_RANGES, ACK_RANGES, HELD_SEGMENTS};
use crate::record::{OutboxRecord, RxChannel};
use crate::wire::frame::{Ack, Offered, Received, Resume, Run};
use crate::{ChannelId, Epoch, Generation, Position, ResumeId, Seq};

impl Engine {
    /// Whether something is outstanding that an answer could tell us about.
    pub(super) fn wants_answer(&self) -> bool {
        self.live.outstanding()
            || self.sending.iter().any(|(channel, sending)| {
                self.live
                    .out
                    .get(channel)
                    .is_some_and(|out| out.consumed < sending.awaited)
            })
    }

    /// The Resume for a link, and note of what was sent before it.
    pub(super) fn resume_for(&mut self, generation: Generation) -> Option<Resume> {
        let id = self.entropy.resume_id();
        let answer = self.wants_answer();
        if !self.ask(generation, id) {
            return None;
        }
        let stated = self.stated(Rule::ResumeAfterDurable);
        let offered = stated
            .out
            .iter()
            .map(|(&channel, out)| {
                let sending = self.sending.get(&channel);
                let sent = sending.map_or(out.next, |sending| sending.high.min(out.next));
                Offered {
                    channel,
                    lowest: out.seq(out.offer),
                    digest: out.digest(out.offer_tally),
                    end: out.seq(sent.max(out.offer)),
                }
            })
            .collect();
        let peer_epoch = stated.peer_epoch;
        Some(Resume {
            id,
            epoch: stated.epoch,
            peer_epoch,
            received: peer_epoch.map_or_else(Vec::new, |epoch| self.received(epoch)),
            offered,
            answer,
        })
    }

    /// The Ack for one of the peer's epochs.
    pub(super) fn ack_for(&self, epoch: Epoch, answers: Option<ResumeId>) -> Ack {
        Ack {
            epoch,
            answers,
            received: self.received(epoch),
        }
    }

    /// What the store holds of a stream.
    fn received(&self, epoch: Epoch) -> Vec<Received> {
        let Some(stream) = self.durable.stream(epoch) else {
            return Vec::new();
        };
        let mut ranges_left = ACK_ALL_RANGES;
        let one = |(&channel, rx): (&ChannelId, &RxChannel)| {
            let consumed = self.durable.consumed(channel).find(|(of, _)| *of == epoch);
            let ranges: Vec<Run> = rx
                .held
                .iter()
                .filter(|(first, _)| *first > rx.next)
                .take(ACK_RANGES.min(ranges_left))
                .map(|(first, end)| Run {
                    first,
                    count: end.0.saturating_sub(first.0),
                })
                .collect();
            ranges_left = ranges_left.saturating_sub(ranges.len());
            Received {
                channel,
                next: rx.next,
                digest: rx.digest,
                consumed: consumed.map_or(Seq(0), |(_, consumed)| consumed),
                limit: self.credit_limit(epoch, channel, rx.next),
                ranges,
            }
        };
        stream.channels.iter().map(one).collect()
    }

    /// The peer tells where it is, or was: one that was overtaken names an epoch that it may have left long
    /// ago. What it offered then is all there will be, and what it had it has; no more is taken from it.
    pub(super) fn on_resume(
        &mut self,
        generation: Generation,
        sealed: Sealed,
        resume: Resume,
    ) -> Result<(), Violation> {
        let Resume {
            id,
            epoch,
            peer_epoch,
            received,
            offered,
            answer,
        } = resume;
        let word = self.weigh(sealed, epoch);
        if word != Word::Newest && self.may_be_forgotten(epoch) {
            // If it is new all the same, who waits for an answer asks again.
            return Ok(());
        }
        let new = self.learn_epoch(epoch, word)?;
        for offered in &offered {
            self.receiving(epoch, offered.channel)?;
            #[cfg(feature = "sabotage")]
            self.reset_counters_against_rules(epoch, offered.channel);
            // What lies below the lowest offered never comes [8].
            self.skip_to(
                epoch,
                offered.channel,
                offered.lowest.previous(),
                offered.digest,
            );
        }
        let overtaken = word == Word::Overtaken;
        let epoch_before = self.live.epoch;
        if let Some(of) = peer_epoch {
            self.on_received(generation, of, &received, None, !overtaken);
        }
        if answer || new {
            // An idle session answers too [3].
            self.defer(After::Ack {
                generation,
                epoch,
                answers: Some(id),
            });
        }
        if answer {
            self.tell_consumed_earlier(generation, epoch);
        }
        if !overtaken
            && epoch_before == self.live.epoch
            && self.live.outstanding()
            && self.is_unknown_to(peer_epoch, new)
            && let Some(link) = self.links.get_or_best(generation)
        {
            link.resume_due = true;
        }
        Ok(())
    }

    /// The peer names an epoch as its own. Returns whether it was not known to be the present one.
    fn learn_epoch(&mut self, epoch: Epoch, word: Word) -> Result<bool, Violation> {
        let overtaken = word == Word::Overtaken;
        let new = !overtaken && self.live.peer_epoch != Some(epoch);
        match self.live.peer_epoch {
            Some(later) if overtaken && self.known_stream(epoch).is_none() => {
                self.begin_earlier_stream(epoch, later)?;
            }
            _ => {
                self.ensure_stream(epoch)?;
            }
        }
        if new {
            self.live.peer_epoch = Some(epoch);
            self.writes.touch();
        }
        if word == Word::Newest {
            self.trust_stream(epoch);
        }
        Ok(new)
    }

    /// Whether our epoch is to be told to a peer that takes `ours` for it. If that is one that we had before,
    /// our word is on its way; but one that is `new` itself may have lost it.
    fn is_unknown_to(&self, ours: Option<Epoch>, new: bool) -> bool {
        let is_past = |of| self.live.past.iter().any(|past| past.epoch == of);
        ours != Some(self.live.epoch) && (new || !ours.is_some_and(is_past))
    }

    pub(super) fn on_ack(&mut self, generation: Generation, ack: &Ack) {
        self.on_received(generation, ack.epoch, &ack.received, ack.answers, false);
    }

    /// The peer tells what it has of our stream `epoch`.
    fn on_received(
        &mut self,
        generation: Generation,
        epoch: Epoch,
        received: &[Received],
        answers: Option<ResumeId>,
        is_resume: bool,
    ) {
        if epoch != self.live.epoch {
            return self.on_received_earlier(epoch, received);
        }
        let asked = answers.and_then(|id| self.asked_in(id));
        for one in received {
            let Some(out) = self.live.out.get(&one.channel) else {
                continue;
            };
            let Some(sending) = self.sending.get_mut(&one.channel) else {
                continue;
            };
            let next = out.position(one.next);
            let beyond = next > out.next || (next > sending.high && next > out.low);
            // Only evidence about our own store makes us draw a new epoch [9].
            if beyond || (next == out.low && one.digest != out.digest(out.low_tally)) {
                return self.renew();
            }
            sending.limit = Some(if is_resume {
                one.limit
            } else {
                sending.limit.map_or(one.limit, |old| old.max(one.limit))
            });
            sending.crowded = sending.limit.is_some_and(|limit| limit <= one.next);
            // What went out before we heard how much room there is may have found none.
            if is_resume
                && let Some(link) = self.links.get(generation)
                && link.is_direct()
                && let Some(sent) = link.sent.get_mut(&one.channel)
            {
                sent.remove_run(out.position(one.limit), Position(u64::MAX));
            }
            for run in &one.ranges {
                let first = out.position(run.first);
                // More than a peer holds would be ours to keep.
                let most = next.plus(HELD_SEGMENTS).min(out.next);
                let end = first.plus(run.count).min(most);
                // Ranges hold retransmission back, no more [6].
                sending.held.insert_run(first.max(out.low), end);
            }
            if next > out.low {
                let ack = PendingAck {
                    next,
                    digest: one.digest,
                };
                match sending.record(next.minus(1)).cloned() {
                    Some(record) => self.acknowledge(one.channel, ack, &record),
                    None if sending.ack.is_none_or(|pending| pending.next < next) => {
                        sending.ack = Some(ack);
                    }
                    None => {}
                }
                if self.live.epoch != epoch {
                    return;
                }
            } else {
                let went_back = |asked: &Asked| asked.shows_loss(one.channel, next);
                if next < out.low && (is_resume || asked.as_ref().is_some_and(went_back)) {
                    self.peer_went_back(generation, one.channel);
                }
            }
            self.note_consumed(epoch, one.channel, one.consumed);
        }
        if let Some(asked) = asked {
            self.void_missing(&asked, received);
        }
    }

    /// The peer has everything below `ack.next`; `record` is the last of it.
    pub(super) fn acknowledge(
        &mut self,
        channel: ChannelId,
        ack: PendingAck,
        record: &OutboxRecord,
    ) {
        let Some(out) = self.live.out.get_mut(&channel) else {
            return;
        };
        if ack.next <= out.low {
            return;
        }
        if ack.digest != out.digest(record.tally) {
            return self.renew();
        }
        let segments = ack.next.since(out.low);
        out.low = ack.next;
        out.low_tally = record.tally;
        if record.is_last() {
            out.offer = out.low;
            out.offer_tally = record.tally;
        } else {
            // A message is kept whole until the peer has all of it: under a new epoch it has to
            // be offered from its first segment.
            out.offer = ack
                .next
                .minus(1)
                .minus(u64::from(record.index))
                .max(out.offer);
            out.offer_tally = record.before;
        }
        let (low, offer) = (out.low, out.offer);
        for custody in &mut out.custody {
            custody.held.remove_below(low);
        }
        for link in self.links.iter_mut() {
            if let Some(sent) = link.sent.get_mut(&channel) {
                sent.remove_below(low);
            }
        }
        if let Some(sending) = self.sending.get_mut(&channel) {
            let bytes = segments.saturating_mul(sending.bytes_of_a_segment());
            sending.acknowledged(low, offer);
            self.gauge(bytes);
        }
        self.writes.touch();
        self.purge();
        self.probe.progress(self.now.elapsed);
    }

    /// The peer's store lost what it had acknowledged: it hears what is gone for good, and gets
    /// what there still is.
    fn peer_went_back(&mut self, generation: Generation, channel: ChannelId) {
        let Some(out) = self.live.out.get_mut(&channel) else {
            return;
        };
        out.low = out.offer;
        out.low_tally = out.offer_tally;
        self.writes.touch();
        // A Resume says what is the lowest there is.
        if let Some(link) = self.links.get_or_best(generation) {
            link.resume_due = true;
        }
    }
}
