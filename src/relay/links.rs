//! The links of sessions over one connection to a relay.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use outlive_core::link::LinkClass;
use outlive_core::{Generation, PeerId, StoreId};
use tokio::sync::mpsc;

use super::attached::Attached;
use super::slots::Slots;
use super::{Attach, RelayUse, random};
use crate::backoff::Backoff;
use crate::node::Inner;
use crate::task::{Binding, GivenUp, Input, ToLink};

struct Link {
    generation: Generation,
    inputs: mpsc::Sender<Input>,
    /// How often the session has given up its link over this connection.
    given_up: Backoff,
}

/// What every link over one connection shares.
pub(super) struct Shared {
    pub(super) inner: Arc<Inner>,
    pub(super) used: RelayUse,
    pub(super) rank: u8,
    pub(super) store: StoreId,
    pub(super) link: mpsc::Sender<ToLink>,
    pub(super) giving_up: mpsc::Sender<GivenUp>,
    pub(super) slots: Arc<Mutex<Slots>>,
}

/// The links over one connection.
pub(super) struct Links<'a> {
    pub(super) shared: Shared,
    pub(super) attached: &'a mut Attached,
    of: HashMap<PeerId, Link>,
    /// Sessions that have given up their links, until they get others.
    pub(super) resting: FuturesUnordered<BoxFuture<'static, GivenUp>>,
    /// Whether links were forgotten: any session may have had one.
    forgetful: bool,
}

impl<'a> Links<'a> {
    /// Binds a link for each session that is attached.
    pub(super) fn new(shared: Shared, attached: &'a mut Attached) -> Self {
        attached.prune();
        let mut links = Self {
            shared,
            attached,
            of: HashMap::new(),
            resting: FuturesUnordered::new(),
            forgetful: false,
        };
        for (peer, inputs) in links.attached.sessions() {
            links.bind(peer, inputs);
        }
        links
    }

    /// A session wants a link.
    pub(super) fn attach(&mut self, Attach { peer, inputs }: Attach) {
        if inputs.is_closed() {
            return;
        }
        if self.attached.insert(peer, inputs.clone()) {
            self.forget_sleepers();
        }
        let link = self.of.get(&peer);
        if !link.is_some_and(|link| link.inputs.same_channel(&inputs)) {
            self.bind(peer, inputs);
        }
    }

    /// Forgets the links of sessions that went to sleep.
    fn forget_sleepers(&mut self) {
        let before = self.of.len();
        self.of.retain(|_, link| !link.inputs.is_closed());
        self.of.shrink_to_fit();
        self.forgetful |= self.of.len() < before;
    }

    fn bind(&mut self, peer: PeerId, inputs: mpsc::Sender<Input>) {
        let generation = self.shared.inner.next_generation();
        let binding = Binding {
            generation,
            class: LinkClass::Relayed(self.shared.store),
            home: self.shared.used.home,
            rank: self.shared.rank,
            transport: "relay",
            address: self.shared.used.address.clone(),
            link: self.shared.link.clone(),
            given_up: Some(self.shared.giving_up.clone()),
            again: self.of.contains_key(&peer) || self.forgetful,
        };
        if self.attached.hand(peer, Input::Bind(binding)) {
            let before = self.of.remove(&peer);
            let link = Link {
                generation,
                inputs,
                given_up: before.map(|link| link.given_up).unwrap_or_default(),
            };
            self.of.insert(peer, link);
        }
    }

    /// Whether the session that has a link here is awake.
    pub(super) fn is_awake(&self, peer: PeerId) -> bool {
        let link = self.of.get(&peer);
        link.is_some_and(|link| !link.inputs.is_closed())
    }

    /// The generation of a session's link.
    pub(super) fn generation(&self, peer: PeerId) -> Option<Generation> {
        self.of.get(&peer).map(|link| link.generation)
    }

    /// Hands the session that has a link something that came over it. Returns whether it is there.
    pub(super) fn hand(&mut self, peer: PeerId, input: impl FnOnce(Generation) -> Input) -> bool {
        let generation = self.generation(peer);
        generation.is_some_and(|generation| self.attached.hand(peer, input(generation)))
    }

    /// The session with this peer is woken, if there may be one, and gets a link. Returns whether it is.
    pub(super) fn wake(&mut self, peer: PeerId) -> bool {
        let Ok(inputs) = self.shared.inner.inputs(peer) else {
            return false;
        };
        if self.attached.insert(peer, inputs.clone()) {
            self.forget_sleepers();
        }
        self.bind(peer, inputs);
        true
    }

    /// A session has given up its link. It gets another, ever later.
    pub(super) fn rest(&mut self, of: GivenUp) {
        let link = self.of.get_mut(&of.peer);
        if let Some(link) = link.filter(|link| link.generation == of.generation) {
            let rest = tokio::time::sleep(link.given_up.failed(random()));
            self.resting.push(Box::pin(async move {
                rest.await;
                of
            }));
        }
    }

    /// A session that had given up its link has waited for long enough.
    pub(super) fn rested(&mut self, of: &GivenUp) {
        let link = self.of.get(&of.peer);
        if let Some(link) = link.filter(|link| link.generation == of.generation) {
            let inputs = link.inputs.clone();
            self.bind(of.peer, inputs);
        }
    }

    /// The connection has ended.
    pub(super) fn lose_all(self) {
        for (peer, Link { generation, .. }) in self.of {
            self.attached.lost(peer, generation);
        }
    }
}
