//! The sessions that want links over a relay, and what is on its way to them.
//!
//! The task of a relay serves all sessions: it waits for none of them. What a session does not take
//! at once waits here, within bounds, or is left out and asked for again.

use std::collections::{HashMap, VecDeque};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use outlive_core::{Generation, PeerId};
use tokio::sync::mpsc;

use crate::task::Input;

/// Sessions known to a relay's task before those that went to sleep are looked for.
const LEAST: usize = 64;

/// Inputs that wait for a session that takes none, beside those it has. Further packets are left
/// out, and asked for again if a mailbox holds them. What else there is to say to a session is
/// bounded by itself: answers by the packets it has handed over, one word of its peer's presence,
/// and the end of one link and the beginning of the next.
const WAITING: usize = 256;

/// Room that a session has made.
type Room = (PeerId, Option<mpsc::OwnedPermit<Input>>);

/// The way to a session.
struct Outlet {
    inputs: mpsc::Sender<Input>,
    waiting: VecDeque<Input>,
    /// Whether room for what waits is asked for.
    asked: bool,
}

/// What became of an input.
enum Handed {
    Taken,
    Waits,
    LeftOut,
    /// The session's task has ended.
    Gone,
}

impl Outlet {
    fn hand(&mut self, input: Input) -> Handed {
        if !self.waiting.is_empty() {
            return self.wait(input);
        }
        match self.inputs.try_send(input) {
            Ok(()) => Handed::Taken,
            Err(mpsc::error::TrySendError::Full(input)) => self.wait(input),
            Err(mpsc::error::TrySendError::Closed(_)) => Handed::Gone,
        }
    }

    fn wait(&mut self, input: Input) -> Handed {
        match &input {
            Input::Packet(arrival) if self.waiting.len() >= WAITING => {
                let missed = |waits: &Input| matches!(waits, Input::Missed { .. });
                if arrival.envelope.is_none() || self.waiting.iter().any(missed) {
                    return Handed::LeftOut;
                }
                let generation = arrival.generation;
                self.waiting.push_back(Input::Missed { generation });
                return Handed::Waits;
            }
            Input::Presence { .. } => {
                let presence = |waits: &Input| matches!(waits, Input::Presence { .. });
                self.waiting.retain(|waits| !presence(waits));
            }
            _ => {}
        }
        self.waiting.push_back(input);
        Handed::Waits
    }

    /// A link has ended. What waits and was said over it is of no use any more.
    fn lost(&mut self, generation: Generation) {
        let begins =
            |waits: &Input| matches!(waits, Input::Bind(of) if of.generation == generation);
        let unknown = self.waiting.iter().any(begins);
        // Here are at most one link that has ended and one that lives.
        self.waiting.retain(|waits| match waits {
            Input::Bind(of) => of.generation != generation,
            Input::Lost { .. } | Input::Command(_) | Input::NetworkChanged => true,
            Input::Packet(_)
            | Input::Missed { .. }
            | Input::Accepted { .. }
            | Input::Refused { .. }
            | Input::Presence { .. } => false,
        });
        if !unknown {
            // A session that is gone needs no word of it.
            let _ = self.hand(Input::Lost { generation });
        }
    }

    /// The session has ended. Returns whether mail was to follow.
    fn ended(&mut self) -> bool {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.iter().any(Input::is_mail)
    }

    /// Goes on with what waits, now that there is room.
    fn go_on(&mut self, permit: mpsc::OwnedPermit<Input>) {
        if let Some(input) = self.waiting.pop_front() {
            permit.send(input);
        }
        while let Some(input) = self.waiting.pop_front() {
            match self.inputs.try_send(input) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(input)) => {
                    self.waiting.push_front(input);
                    return;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => self.waiting.clear(),
            }
        }
    }
}

/// The sessions that want links over a relay. Of those that went to sleep at most as many are
/// remembered as are awake, or [`LEAST`].
pub(super) struct Attached {
    outlets: HashMap<PeerId, Outlet>,
    /// The sessions that something waits for.
    blocked: FuturesUnordered<BoxFuture<'static, Room>>,
    prune_at: usize,
}

impl Attached {
    pub(super) fn new() -> Self {
        Self {
            outlets: HashMap::new(),
            blocked: FuturesUnordered::new(),
            prune_at: LEAST,
        }
    }

    /// Adds a session. Returns whether those that went to sleep were forgotten.
    pub(super) fn insert(&mut self, peer: PeerId, inputs: mpsc::Sender<Input>) -> bool {
        if inputs.is_closed() {
            // It has ended on its way here, and its successor may be known already.
            return false;
        }
        let known = self.outlets.get(&peer);
        if known.is_some_and(|outlet| outlet.inputs.same_channel(&inputs)) {
            return false;
        }
        let outlet = Outlet {
            inputs,
            waiting: VecDeque::new(),
            asked: false,
        };
        self.outlets.insert(peer, outlet);
        let prune = self.outlets.len() >= self.prune_at;
        if prune {
            self.prune();
        }
        prune
    }

    pub(super) fn prune(&mut self) {
        self.outlets.retain(|_, outlet| !outlet.inputs.is_closed());
        self.outlets.shrink_to_fit();
        self.prune_at = LEAST.max(self.outlets.len().saturating_mul(2));
    }

    pub(super) fn sessions(&self) -> Vec<(PeerId, mpsc::Sender<Input>)> {
        let outlets = self.outlets.iter();
        outlets
            .map(|(&peer, outlet)| (peer, outlet.inputs.clone()))
            .collect()
    }

    /// Hands a session an input, or keeps it until the session takes it. Returns whether its task is
    /// there.
    pub(super) fn hand(&mut self, peer: PeerId, input: Input) -> bool {
        let handed = match self.outlets.get_mut(&peer) {
            Some(outlet) => outlet.hand(input),
            None => Handed::Gone,
        };
        self.ask_for_room(peer);
        !matches!(handed, Handed::Gone)
    }

    /// Tells a session that its link has ended.
    pub(super) fn lost(&mut self, peer: PeerId, generation: Generation) {
        if let Some(outlet) = self.outlets.get_mut(&peer) {
            outlet.lost(generation);
            self.ask_for_room(peer);
        }
    }

    fn ask_for_room(&mut self, peer: PeerId) {
        if let Some(outlet) = self.outlets.get_mut(&peer)
            && !outlet.waiting.is_empty()
            && !std::mem::replace(&mut outlet.asked, true)
        {
            let inputs = outlet.inputs.clone();
            self.blocked.push(Box::pin(async move {
                (peer, inputs.reserve_owned().await.ok())
            }));
        }
    }

    /// Hands over what waits, as sessions make room for it. Returns with the peer of one that ended before it
    /// took its mail. Cancellation-safe.
    pub(super) async fn hand_on(&mut self) -> PeerId {
        while let Some((peer, permit)) = self.blocked.next().await {
            if self.made_room(peer, permit) {
                return peer;
            }
        }
        std::future::pending().await
    }

    /// Hands over what waits, until nothing does. A session that has ended needs nothing.
    /// Cancellation-safe.
    pub(super) async fn hand_over(&mut self) {
        while let Some((peer, permit)) = self.blocked.next().await {
            self.made_room(peer, permit);
        }
    }

    /// Returns whether the session has ended, and mail was to follow. One that was started anew has asked for
    /// that.
    fn made_room(&mut self, peer: PeerId, permit: Option<mpsc::OwnedPermit<Input>>) -> bool {
        let Some(outlet) = self.outlets.get_mut(&peer) else {
            return false;
        };
        match permit {
            None => return outlet.inputs.is_closed() && outlet.ended(),
            Some(permit) if permit.same_channel_as_sender(&outlet.inputs) => {
                outlet.asked = false;
                outlet.go_on(permit);
                self.ask_for_room(peer);
            }
            Some(_) => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;
    use outlive_core::EnvelopeId;

    use super::*;
    use crate::task::Arrival;

    #[test]
    fn sessions_that_went_to_sleep_are_forgotten() {
        let mut attached = Attached::new();
        let mut awake = Vec::new();
        for n in 0..2_000u32 {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&n.to_le_bytes());
            let (inputs, task) = mpsc::channel(1);
            attached.insert(outlive_core::Identity::from_seed(seed).peer_id(), inputs);
            awake.push(task);
            if awake.len() > 100 {
                awake.remove(0);
            }
            assert!(
                attached.outlets.len() <= 2 * 101,
                "{}",
                attached.outlets.len()
            );
        }
        assert!(attached.outlets.len() >= 100);
    }

    fn peer() -> PeerId {
        outlive_core::Identity::from_seed([1; 32]).peer_id()
    }

    fn packet(envelope: Option<EnvelopeId>) -> Input {
        Input::Packet(Arrival {
            generation: Generation::at_start(0),
            envelope,
            packet: Bytes::new(),
            claimed: false,
        })
    }

    #[tokio::test]
    async fn of_a_session_that_ended_before_it_took_its_mail_the_peer_is_told() {
        for (envelope, is_mail) in [(Some(EnvelopeId(1)), true), (None, false)] {
            let mut attached = Attached::new();
            let (inputs, task) = mpsc::channel(1);
            attached.insert(peer(), inputs);
            for _ in 0..2 {
                assert!(attached.hand(peer(), packet(envelope)));
            }
            drop(task);
            let told = attached.hand_on().now_or_never();
            assert_eq!(told, is_mail.then(peer));
            assert_eq!(attached.hand_on().now_or_never(), None, "once");
        }
    }

    #[test]
    fn a_session_that_has_ended_on_its_way_here_takes_no_place_of_its_successor() {
        let mut attached = Attached::new();
        let (before, ended) = mpsc::channel(1);
        let (inputs, mut task) = mpsc::channel(1);
        drop(ended);
        attached.insert(peer(), inputs);
        attached.insert(peer(), before);
        assert!(attached.hand(peer(), packet(None)));
        assert!(task.try_recv().is_ok());
    }
}
