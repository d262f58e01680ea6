//! What can happen in the world, and stories drawn of it at random.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use outlive_core::limits::{KEY_AGE, MESSAGE_TTL};
use outlive_core::link::Reads;
use outlive_core::record::{InboxRecord, Key, OutboxRecord, Record};
use outlive_core::{MessageId, PeerId, StoreId, WallTime};

use super::World;
use crate::peer::{Disk, apply};

/// How often keys grow old in a story: in one that took a month, all that waits would expire.
const AGES: u64 = MESSAGE_TTL.as_secs() / KEY_AGE.as_secs() - 1;

/// What the clock on the wall may be set to: one of this many days.
pub(super) const CLOCKS: u64 = 100;
pub(super) const DAY: u64 = 86_400_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Send,
    Take,
    Commit,
    Flush,
    Tick,
    Connect,
    Disconnect,
    ToRelay,
    FromRelay,
    Push,
    Direct,
    LinkUp,
    LinkDown,
    Stale,
    Garbage,
    Replay,
    Tamper,
    Meet,
    Crash,
    Start,
    RelayCrash,
    RelayStart,
    RelayLose,
    Silent,
    Refuse,
    Expire,
    Cancel,
    Snapshot,
    Restore,
    Lose,
    Vanish,
    GiveUp,
    Read,
    Age,
    SetClock,
}

impl World {
    pub(crate) fn play(&mut self) {
        use Act::{
            Cancel, Commit, Connect, Crash, Direct, Disconnect, Expire, Flush, FromRelay, Garbage,
            LinkDown, LinkUp, Lose, Meet, Push, Refuse, RelayCrash, RelayLose, RelayStart, Replay,
            Restore, Send, Silent, Snapshot, Stale, Start, Take, Tamper, Tick, ToRelay,
        };
        let mut deck: Vec<(Act, usize)> = vec![
            (Send, 9),
            (Take, 8),
            (Commit, 6),
            (Flush, 18),
            (Tick, 5),
            (Connect, 6),
            (Disconnect, 2),
            (ToRelay, 14),
            (FromRelay, 14),
            (Push, 14),
            (Direct, 12),
        ];
        let groups: [&[(Act, usize)]; 10] = [
            &[(LinkUp, 3), (LinkDown, 2), (Stale, 3)],
            &[(Crash, 2), (Start, 6)],
            &[(RelayCrash, 1), (RelayStart, 5)],
            &[(RelayLose, 1), (RelayStart, 3)],
            &[(Silent, 2)],
            &[(Expire, 2), (Cancel, 2)],
            &[(Snapshot, 3), (Restore, 2), (Start, 6), (Meet, 3)],
            &[(Lose, 1), (Start, 6), (Meet, 3)],
            &[(Refuse, 2), (Garbage, 1)],
            &[(Replay, 6), (Tamper, 3)],
        ];
        for group in groups {
            if self.random.chance(45) {
                deck.extend_from_slice(group);
            }
        }
        if self.files {
            deck.extend([(Act::Vanish, 1), (Act::GiveUp, 2)]);
        }
        if self.days {
            deck.push((Act::Age, 4));
        }
        if self.clocks {
            deck.push((Act::SetClock, 4));
        }
        if self.elsewhere {
            deck.push((Act::Read, 6));
        }
        let total: usize = deck.iter().map(|(_, weight)| weight).sum();
        let length = [25, 60, 150, 300][self.random.below(4)];
        let (mut rare, mut times) = (0, 0);
        for _ in 0..length {
            let mut pick = self.random.below(total);
            let (act, _) = *deck
                .iter()
                .find(|(_, weight)| {
                    let here = pick < *weight;
                    pick = pick.wrapping_sub(if here { 0 } else { *weight });
                    here
                })
                .expect("the weights sum up");
            if matches!(act, Restore | Lose | RelayLose | Silent) {
                rare += 1;
                if rare > 4 {
                    continue;
                }
            }
            if act == Act::Age {
                times += 1;
                if times > AGES {
                    continue;
                }
            }
            let who = self.random.below(2);
            self.act(act, who);
        }
    }

    pub(super) fn act(&mut self, act: Act, who: usize) {
        self.pass(self.pace);
        if !matches!(act, Act::Tick) {
            self.log(|| format!("{act:?} {who}"));
        }
        match act {
            Act::Send => self.send(who),
            Act::Take => {
                if let Some(handed) = self.peers[who].take(self.only) {
                    self.arrived(who, &handed);
                }
            }
            Act::Commit => self.peers[who].commit(self.only, self.now),
            Act::Flush => {
                let peer = &mut self.peers[who];
                peer.reads_first = !peer.reads_first;
                peer.flush(self.now);
            }
            Act::Tick => self.tick(who, Duration::from_millis(700)),
            Act::Connect => self.connect(who),
            Act::Disconnect => self.disconnect(who),
            Act::ToRelay => self.relay_hears(who),
            Act::FromRelay => self.relay_speaks(who),
            Act::Push => self.push(who),
            Act::Direct => self.direct_packet(who),
            Act::LinkUp => self.link_up(),
            Act::LinkDown => self.link_down(),
            Act::Stale => self.stale(),
            Act::Garbage => self.garbage(who),
            Act::Replay => self.replay(who),
            Act::Meet => self.meet(),
            Act::Tamper => self.tamper(who),
            Act::Crash => self.crash(who),
            Act::Start => {
                let seed = self.random.seed();
                self.peers[who].start(seed, self.now);
            }
            Act::RelayCrash => self.relay_down(),
            Act::RelayStart => self.relay_up = true,
            Act::RelayLose => {
                self.relay_down();
                self.mailbox = [Vec::new(), Vec::new()];
                self.store = StoreId([self.random.next() as u8; 16]);
            }
            Act::Silent => {
                let count = self.mailbox[who].len();
                if count > 0 {
                    let lost = self.random.below(count);
                    self.mailbox[who].remove(lost);
                }
            }
            Act::Refuse => self.refusing = !self.refusing,
            Act::Expire => {
                self.lie_idle(Duration::from_secs(20));
                self.tick(who, Duration::from_millis(1));
            }
            Act::Cancel => {
                let now = self.now;
                let peer = &mut self.peers[who];
                if let (Some(engine), Some((ticket, number))) =
                    (&mut peer.engine, peer.tickets.last())
                    && engine.cancel(*ticket, now)
                {
                    // A crash may keep the word of it from the app, which asked for it.
                    self.exempt.insert(*number);
                }
                peer.pump();
            }
            Act::Snapshot => self.peers[who].snapshot = Some(self.peers[who].disk.clone()),
            Act::Restore => {
                if let Some(snapshot) = self.peers[who].snapshot.clone() {
                    self.roll_back(who, snapshot);
                }
            }
            Act::Lose => self.roll_back(who, BTreeMap::new()),
            Act::Vanish => {
                if let Some(transfer) = self.some_file(who) {
                    self.peers[who].files.remove(&transfer);
                }
            }
            Act::GiveUp => self.give_up(who),
            Act::Read => {
                let reads = [Reads::Always, Reads::Perhaps, Reads::Never];
                let reads = reads[self.random.below(3)];
                self.read(who, reads);
            }
            Act::Age => {
                self.lie_idle(KEY_AGE);
                self.tick(who, Duration::from_millis(1));
            }
            Act::SetClock => {
                let at = self.random.below(CLOCKS as usize) as u64;
                self.now.wall = WallTime(at * DAY);
                self.tick(who, Duration::from_millis(1));
            }
        }
        self.signal();
        self.collect();
    }

    fn tick(&mut self, who: usize, time: Duration) {
        self.pass(time);
        self.peers[who].tick(self.now);
    }

    fn crash(&mut self, who: usize) {
        if self.peers[who].engine.is_none() {
            return;
        }
        // What was on its way to the disk may have got there, unknown to anybody.
        if self.random.chance(50)
            && let Some(batch) = self.peers[who].write.take()
        {
            apply(&mut self.peers[who].disk, batch);
        }
        self.peers[who].stop();
        self.connections[who] = None;
        self.direct
            .take()
            .into_iter()
            .flatten()
            .enumerate()
            .for_each(|(peer, (generation, _))| {
                if peer != who {
                    self.unbind(peer, generation);
                }
            });
    }

    fn roll_back(&mut self, who: usize, disk: Disk) {
        self.crash(who);
        // What the lost disk had taken may be acknowledged, and is gone with it.
        let taken = self.on_disk(who, |peer, key, value| match Key::of_peer(peer, key) {
            Ok(Key::Inbox(..)) => Some(InboxRecord::from_bytes(value).expect("own disk").id),
            _ => None,
        });
        self.peers[who].disk = disk;
        self.rolls[who] += 1;
        // What waits in an outbox is not.
        let waiting = [0, 1].map(|who| {
            self.on_disk(who, |peer, key, value| match Key::of_peer(peer, key) {
                Ok(Key::Outbox(..)) => Some(OutboxRecord::from_bytes(value).expect("own disk").id),
                _ => None,
            })
        });
        for (&number, message) in &self.messages {
            let from = message.from;
            let delivered = self.delivered.contains_key(&(1 - from, number));
            let waits = waiting[from].contains(&number);
            if !delivered && (!waits || (from != who && taken.contains(&number))) {
                self.exempt.insert(number);
            }
        }
    }

    /// The messages that some records are of, on a peer's disk.
    fn on_disk(
        &self,
        who: usize,
        of: impl Fn(PeerId, &[u8], &[u8]) -> Option<MessageId>,
    ) -> BTreeSet<u64> {
        let peer = &self.peers[who];
        let found = peer
            .disk
            .iter()
            .filter_map(|(key, value)| of(peer.other, key, value));
        found
            .filter_map(|id| self.names.get(&id).copied())
            .collect()
    }
}
