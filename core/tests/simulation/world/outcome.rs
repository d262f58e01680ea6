//! How a story ends: everything heals, and then nothing may be missing and nobody may speak.

use std::collections::BTreeMap;
use std::time::Duration;

use outlive_core::engine::Engine;
use outlive_core::link::Reads;
use outlive_core::transport::Class;
use outlive_core::{ChannelId, RunSet, Seq};

use super::{Act, CHANNELS, Fault, Inboxes, World};
use crate::peer::Peer;
use crate::signaling::Signaling;

impl World {
    /// Both are there for a while and come to terms.
    pub(super) fn meet(&mut self) {
        for who in 0..2 {
            self.act(Act::Start, who);
            self.act(Act::Connect, who);
        }
        for _ in 0..8 {
            self.steps();
        }
    }

    pub(super) fn steps(&mut self) {
        let steps = [
            Act::FromRelay,
            Act::Push,
            Act::ToRelay,
            Act::Direct,
            Act::Take,
            Act::Commit,
            Act::Flush,
        ];
        for who in 0..2 {
            for act in steps {
                self.act(act, who);
            }
        }
    }

    /// Everything works again: all that was sent has to arrive, and then there is silence.
    pub(crate) fn settle(&mut self) {
        self.refusing = false;
        let direct = self.random.chance(30);
        self.relay_up = true;
        (0..2).for_each(|who| self.read(who, Reads::Always));
        for who in 0..2 {
            self.act(Act::Start, who);
            self.act(Act::Connect, who);
        }
        self.act(if direct { Act::LinkUp } else { Act::LinkDown }, 0);
        if self.inboxes == Inboxes::Crowded {
            self.settle_one_channel();
        }
        let mut quiet = 0;
        for round in 0..4_000 {
            quiet = if self.round() { 0 } else { quiet + 1 };
            let waiting = self.peers.iter().any(Peer::outstanding);
            if quiet > 60 || (quiet > 20 && !waiting && round > 60) {
                break;
            }
        }
        if quiet <= 20 {
            self.fault(Fault::Restless);
        }
        let mut mailboxes = self.mailbox.iter().flatten();
        let left = mailboxes.any(|envelope| envelope.class == Class::Keep);
        // Where the sender lost what came before, there may never be room for the rest.
        let left = left && (self.inboxes == Inboxes::Roomy || self.rolls == [0, 0]);
        if left || self.peers.iter().any(Peer::outstanding) {
            self.fault(Fault::Stuck);
        }
        for number in self.missing() {
            self.fault(Fault::Lost(number));
        }
        if self.peers.iter().any(counts_too_little) {
            self.fault(Fault::Uncounted);
        }
        self.hear_of_commits();
        if self.rolls == [0, 0] {
            if self.peers.iter().any(|peer| peer.renewed > 0) {
                self.fault(Fault::RenewedForNothing);
            }
            self.check_gaps();
        }
    }

    /// Who waits to hear that all was committed hears it in the end, whatever the other has lost.
    fn hear_of_commits(&mut self) {
        let now = self.now;
        for peer in &mut self.peers {
            let Some(engine) = &mut peer.engine else {
                continue;
            };
            let ends: Vec<_> = engine
                .session()
                .out
                .iter()
                .map(|(&of, out)| (of, out.low))
                .collect();
            for (channel, end) in ends {
                engine.await_consumed(channel, end, now);
            }
        }
        for _ in 0..400 {
            if !self.peers.iter().any(is_unheard) {
                return;
            }
            self.round();
        }
        self.fault(Fault::Unheard);
    }

    /// Keys that the peers have still, and that others have taken the place of.
    pub(crate) fn replaced_keys(&self) -> u64 {
        let engines = self.peers.iter().filter_map(|peer| peer.engine.as_ref());
        let keys = engines.flat_map(|engine| &engine.session().keys.associations);
        keys.filter(|of| of.superseded.is_some()).count() as u64
    }

    /// The apps know of each message that did not come, and of none that did, that it is missing:
    /// though they forgot what they had been told when they crashed.
    pub(super) fn check_gaps(&mut self) {
        let mut gaps = BTreeMap::<(usize, ChannelId), RunSet<Seq>>::new();
        for (who, peer) in self.peers.iter().enumerate() {
            for (channel, gap) in peer.told.iter().chain(&peer.learned) {
                let of = gaps.entry((who, *channel)).or_default();
                of.insert_run(gap.first, gap.last.next());
            }
        }
        let mut faults = Vec::new();
        for number in &self.ok {
            let Some(message) = self.messages.get(number) else {
                continue;
            };
            let to = 1 - message.from;
            let gap = gaps.get(&(to, message.channel));
            let told = |seq| gap.is_some_and(|gap| gap.contains(Seq(seq)));
            let arrived = self.delivered.contains_key(&(to, *number));
            if !arrived && !message.seqs.clone().all(told) {
                faults.push(Fault::Unexplained(*number));
            }
            if arrived && message.seqs.clone().any(told) {
                faults.push(Fault::FalseGap(*number));
            }
        }
        for fault in faults {
            self.fault(fault);
        }
    }

    /// The apps take from one channel alone, and what was sent on it has to arrive, however full
    /// the other is.
    pub(super) fn settle_one_channel(&mut self) {
        let taken = CHANNELS[self.random.below(2)];
        self.only = Some(taken);
        let mut blocked = Vec::new();
        for _ in 0..1_000 {
            self.round();
            blocked = self.missing();
            blocked.retain(|number| self.messages[number].channel == taken);
            if blocked.is_empty() {
                break;
            }
        }
        for number in blocked {
            self.fault(Fault::Blocked(number));
        }
        self.only = None;
    }

    /// All clocks go on. Those that outlive a process show whole milliseconds, and what is less counts
    /// with what follows: they go on by parts of one, and would stand still if they were lost.
    pub(super) fn pass(&mut self, time: Duration) {
        let millis = |elapsed: Duration| Duration::from_millis(elapsed.as_millis() as u64);
        let before = millis(self.now.elapsed);
        self.now.elapsed += time;
        let passed = millis(self.now.elapsed) - before;
        self.lie_idle(passed);
    }

    /// Time goes by in which nobody does anything.
    pub(super) fn lie_idle(&mut self, passed: Duration) {
        self.now.store = self.now.store.plus(passed);
        self.now.wall = self.now.wall.plus(passed);
    }

    /// Everybody does what there is to do; if there is nothing, time passes up to the next
    /// deadline. Returns whether there was something.
    pub(crate) fn round(&mut self) -> bool {
        let spoken = self.spoken;
        self.steps();
        let busy = self
            .connections
            .iter()
            .flatten()
            .any(|c| !c.to.is_empty() || !c.from.is_empty())
            // A few may be Pings, which end only with the link.
            || self.direct.iter().flatten().any(|(_, queue)| queue.len() > 3)
            || self.peers.iter().any(|peer| peer.write.is_some());
        if spoken != self.spoken || busy {
            return true;
        }
        let next = self.peers.iter().filter_map(Peer::deadline);
        let next = next.chain(self.signaling.iter().filter_map(Signaling::deadline));
        if let Some(next) = next.min()
            && next > self.now.elapsed
        {
            self.pass(next - self.now.elapsed);
        }
        for who in 0..2 {
            self.peers[who].tick(self.now);
        }
        self.signal();
        self.collect();
        spoken != self.spoken
    }
}

/// Whether something that the other has was not told to be committed.
fn is_unheard(peer: &Peer) -> bool {
    let session = peer.engine.as_ref().map(Engine::session);
    session.is_some_and(|session| session.out.values().any(|out| out.consumed < out.low))
}

/// Whether the app has committed all that came of a channel, and the peer is not told so.
fn counts_too_little(peer: &Peer) -> bool {
    let Some(session) = peer.engine.as_ref().map(Engine::session) else {
        return false;
    };
    let mut channels = session.streams.iter().flat_map(|of| &of.channels);
    channels.any(|(channel, rx)| {
        let inbox = session.inboxes.get(channel);
        let came = rx.partial.map_or(rx.next, |partial| partial.first);
        inbox.is_none_or(|inbox| inbox.messages == 0) && rx.consumed < came
    })
}
