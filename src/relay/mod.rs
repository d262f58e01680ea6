//! The task of a relay: dials it, keeps one connection for all sessions, and binds their links.
//!
//! Each connection brings each attached session a link of a new generation, passed by value. When
//! the connection ends its links are lost and the sessions go on; nothing of an old connection can
//! reach a new one (I5).

mod arrivals;
mod attached;
mod dialing;
mod ended;
mod envelopes;
mod second_connection;
mod sending;
mod slots;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use outlive_core::link::LinkClass;
use outlive_core::transport::{
    DeliveryToken, Outgoing, RelayConnection, RelayTransport, TransportError,
};
use outlive_core::{Generation, PeerId, StoreId};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use self::arrivals::LetBy;
use self::attached::Attached;
use self::dialing::{Dialed, dial};
use self::ended::Ended;
use self::envelopes::Envelopes;
use self::second_connection::SecondConnection;
use self::sending::send_all;
use self::slots::Slots;
use crate::backoff::Backoff;
use crate::network::{Ear, News};
use crate::node::Inner;
use crate::task::{Binding, GivenUp, Input, ToLink, pending_or};

/// Items on their way from sessions to a connection. When they fill it, sessions hold back.
const TO_LINK: usize = 256;

/// Sessions waiting to be attached. When they fill it, starting sessions wait.
pub(crate) const ATTACHING: usize = 64;

/// Links that sessions have given up and that are not seen to yet.
const GIVEN_UP: usize = 256;

/// How long a relay that is left may take to hear the last words. One that takes nothing any more
/// holds nobody up for longer.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long a connection may be silent after the network is said to be up, perhaps as another one
/// than it was made over: as long as it took to make, within these bounds. Too short, and one that is only
/// slow is made anew for nothing; too long, and a dead one holds its sessions up.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
const SIGN_OF_LIFE_MOST: Duration = Duration::from_secs(10);

/// How a relay is at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayState {
    /// Being dialed, or waiting for the next try.
    Connecting,
    /// Signed in.
    Connected,
    /// The last try failed, for this reason; the next one follows.
    Failing(String),
    /// Its address can never work, or it was removed.
    Closed,
}

/// A session that wants links over this relay.
pub(crate) struct Attach {
    pub(crate) peer: PeerId,
    pub(crate) inputs: mpsc::Sender<Input>,
}

pub(crate) struct RelayTask {
    pub(crate) inner: Arc<Inner>,
    pub(crate) transport: Arc<dyn RelayTransport>,
    /// What opens our mailbox for others.
    pub(crate) token: watch::Receiver<Option<DeliveryToken>>,
    pub(crate) rank: u8,
    pub(crate) attaching: mpsc::Receiver<Attach>,
    pub(crate) state: watch::Sender<RelayState>,
    pub(crate) cancel: CancellationToken,
}

struct Link {
    generation: Generation,
    inputs: mpsc::Sender<Input>,
    /// How often the session has given up its link over this connection.
    given_up: Backoff,
}

/// What every link over one connection shares.
struct Shared {
    store: StoreId,
    link: mpsc::Sender<ToLink>,
    giving_up: mpsc::Sender<GivenUp>,
    slots: Arc<Mutex<Slots>>,
    /// Whether links over it were forgotten: any session may have had one.
    forgetful: AtomicBool,
}

impl Shared {
    /// Forgets the links of sessions that went to sleep.
    fn prune(&self, links: &mut HashMap<PeerId, Link>) {
        let before = links.len();
        links.retain(|_, link| !link.inputs.is_closed());
        links.shrink_to_fit();
        if links.len() < before {
            self.forgetful.store(true, Ordering::Relaxed);
        }
    }
}

impl RelayTask {
    pub(crate) async fn run(mut self) {
        let mut attached = Attached::new();
        let mut backoff = Backoff::default();
        let mut network = self.inner.network.ear();
        let cancel = self.cancel.clone();
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                attach = self.attaching.recv() => {
                    let Some(Attach { peer, inputs }) = attach else { break };
                    attached.insert(peer, inputs);
                    continue;
                }
                () = attached.hand_on() => continue,
                () = network.until_up() => {}
            }
            let (inner, transport) = (self.inner.clone(), self.transport.clone());
            let dialing = dial(&inner, &transport, &mut network);
            let connected = tokio::select! {
                () = cancel.cancelled() => break,
                result = self.while_attaching(&mut attached, dialing) => result,
            };
            let Some(connected) = connected else {
                continue;
            };
            let error = match connected {
                Ok(Dialed { connection, took }) => {
                    let since = Instant::now();
                    info!(relay = self.transport.address(), "connected");
                    self.state.send_replace(RelayState::Connected);
                    let life = SIGN_OF_LIFE.max(took).min(SIGN_OF_LIFE_MOST);
                    let ended = self
                        .carry(connection, life, &mut attached, &mut network)
                        .await;
                    if since.elapsed() >= ended.time_to_settle() {
                        backoff.succeeded();
                    }
                    match ended {
                        Ended::Left => break,
                        Ended::Moved => {
                            self.state.send_replace(RelayState::Connecting);
                            continue;
                        }
                        Ended::Failed { error, .. } | Ended::SecondFailed(error) => error,
                    }
                }
                Err(error) => error,
            };
            if self.cancel.is_cancelled() {
                break;
            }
            debug!(relay = self.transport.address(), %error, "not connected");
            let hopeless = matches!(error, TransportError::Address { .. });
            self.state
                .send_replace(RelayState::Failing(error.to_string()));
            if hopeless {
                break;
            }
            let wait = backoff.failed(random());
            let sleeping = tokio::time::sleep(wait);
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.while_attaching(&mut attached, sleeping) => {}
                // A network that comes up is a reason to try at once.
                _ = network.news() => {}
            }
        }
        self.state.send_replace(RelayState::Closed);
        // No session gets a link any more. One that takes nothing at the moment is waited for: it would
        // keep a link of whose end it did not hear.
        self.attaching.close();
        attached.hand_over().await;
    }

    /// Attaches sessions until `work` is done.
    async fn while_attaching<T>(
        &mut self,
        attached: &mut Attached,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return result,
                () = attached.hand_on() => {}
                Some(Attach { peer, inputs }) = self.attaching.recv() => {
                    attached.insert(peer, inputs);
                }
            }
        }
    }

    /// Carries the links of all attached sessions until the connection ends.
    async fn carry(
        &mut self,
        connection: RelayConnection,
        life: Duration,
        attached: &mut Attached,
        network: &mut Ear,
    ) -> Ended {
        let RelayConnection {
            store,
            sender,
            mut receiver,
        } = connection;
        let (link, outgoing) = mpsc::channel(TO_LINK);
        let (to_unidentified, items) = mpsc::channel(TO_LINK);
        let (answering, mut answers) = mpsc::channel(TO_LINK);
        let envelopes = Arc::new(Mutex::new(Envelopes::default()));
        let unnamed = Arc::new(Mutex::new(Envelopes::default()));
        let slots = Arc::new(Mutex::new(Slots::default()));
        let (giving_up, mut given_up) = mpsc::channel(GIVEN_UP);
        let mut resting = FuturesUnordered::new();
        let shared = Shared {
            store,
            link: link.clone(),
            giving_up,
            slots: slots.clone(),
            forgetful: AtomicBool::new(false),
        };
        let mut links = HashMap::<PeerId, Link>::new();
        attached.prune();
        for (peer, inputs) in attached.sessions() {
            self.bind(attached, &mut links, peer, inputs, &shared);
        }
        self.inner.wake_sessions_with_work();
        let mut sending = Box::pin(send_all(
            sender,
            self.registration().into_iter().collect(),
            outgoing,
            Some(to_unidentified),
            envelopes.clone(),
            slots,
            self.cancel.clone(),
        ));
        let unidentified = SecondConnection {
            transport: self.transport.clone(),
            store,
            items,
            answers: answering,
            envelopes: unnamed.clone(),
            cancel: self.cancel.clone(),
        };
        let mut unidentified = Box::pin(unidentified.run());
        let mut was_heard = false;
        let mut silent = None;
        let mut let_by = LetBy::default();
        let ended = loop {
            let failed = |error| Ended::Failed { error, was_heard };
            let broken = |why: &str| failed(TransportError::Broken(why.to_owned()));
            tokio::select! {
                // Who ends the connection has the last words said: both halves end by themselves then.
                biased;
                () = self.cancel.cancelled() => break Ended::Left,
                error = &mut sending => break failed(error),
                error = &mut unidentified => break Ended::SecondFailed(error),
                () = attached.hand_on() => {}
                Some(answer) = answers.recv() => {
                    self.deliver(answer, &mut links, attached, &shared, &unnamed, &mut let_by)
                        .await;
                }
                // Only when there is room: `sending` makes it, and is not polled meanwhile.
                Ok(permit) = changed(&mut self.token, &link) => {
                    if let Some(registration) = self.registration() {
                        permit.send(registration);
                    }
                }
                Ok(permit) = link.reserve(), if let_by.has_unsaid() => let_by.say(permit),
                news = network.news() => match news {
                    News::Down => break broken("the network is down"),
                    News::Up if receiver.is_stranded() => break Ended::Moved,
                    News::Up => {
                        self.ask_for_life(&link);
                        silent.get_or_insert_with(|| Box::pin(tokio::time::sleep(life)));
                    }
                },
                incoming = receiver.receive() => match incoming {
                    Ok(incoming) => {
                        (silent, was_heard) = (None, true);
                        self.deliver(incoming, &mut links, attached, &shared, &envelopes, &mut let_by)
                            .await;
                    }
                    Err(error) => break failed(error),
                },
                // Behind what has come: a process that was held up looks at that first.
                () = pending_or(&mut silent) => {
                    break broken("it leads nowhere since the network changed");
                }
                () = let_by.retry() => self.ask_again(&mut let_by, &link).await,
                Some(Attach { peer, inputs }) = self.attaching.recv() => {
                    if attached.insert(peer, inputs.clone()) {
                        shared.prune(&mut links);
                    }
                    let bound = links.get(&peer).is_some_and(|l| l.inputs.same_channel(&inputs));
                    if !bound {
                        self.bind(attached, &mut links, peer, inputs, &shared);
                    }
                }
                Some(GivenUp { peer, generation }) = given_up.recv() => {
                    let link = links.get_mut(&peer);
                    if let Some(link) = link.filter(|link| link.generation == generation) {
                        let rest = tokio::time::sleep(link.given_up.failed(random()));
                        resting.push(async move {
                            rest.await;
                            (peer, generation)
                        });
                    }
                }
                Some((peer, generation)) = resting.next() => {
                    let link = links.get(&peer);
                    if let Some(link) = link.filter(|link| link.generation == generation) {
                        let inputs = link.inputs.clone();
                        self.bind(attached, &mut links, peer, inputs, &shared);
                    }
                }
            }
        };
        for (peer, Link { generation, .. }) in links {
            attached.lost(peer, generation);
        }
        if matches!(ended, Ended::Left) {
            // Whether the relay hears it or not, the connection ends.
            let both = async { tokio::join!(sending, unidentified) };
            let _ = tokio::time::timeout(FAREWELL, both).await;
        }
        ended
    }

    /// Asks the relay for something that it answers at once: whether we ourselves are there.
    fn ask_for_life(&self, link: &mpsc::Sender<ToLink>) {
        let item = Outgoing::Watch {
            peers: vec![self.inner.identity.peer_id()],
        };
        // While it is full, what is in it asks for answers enough.
        let _ = link.try_send(ToLink::from_relay(item));
    }

    fn bind(
        &self,
        attached: &mut Attached,
        links: &mut HashMap<PeerId, Link>,
        peer: PeerId,
        inputs: mpsc::Sender<Input>,
        shared: &Shared,
    ) {
        let generation = self.inner.next_generation();
        let binding = Binding {
            generation,
            class: LinkClass::Relayed(shared.store),
            rank: self.rank,
            transport: "relay",
            address: self.transport.address().to_owned(),
            link: shared.link.clone(),
            given_up: Some(shared.giving_up.clone()),
            again: links.contains_key(&peer) || shared.forgetful.load(Ordering::Relaxed),
        };
        if attached.hand(peer, Input::Bind(binding)) {
            let before = links.remove(&peer);
            let link = Link {
                generation,
                inputs,
                given_up: before.map(|link| link.given_up).unwrap_or_default(),
            };
            links.insert(peer, link);
        }
    }

    /// What tells the relay which token opens our mailbox.
    fn registration(&mut self) -> Option<ToLink> {
        let token = self.token.borrow_and_update();
        let tokens = vec![token.as_ref()?.hash()];
        Some(ToLink::from_relay(Outgoing::AcceptUnidentified { tokens }))
    }
}

/// Waits until there is another token, and room on the link to tell of it. Cancellation-safe: the
/// token counts as seen only when it is told.
async fn changed<'a>(
    token: &mut watch::Receiver<Option<DeliveryToken>>,
    link: &'a mpsc::Sender<ToLink>,
) -> Result<mpsc::Permit<'a, ToLink>, mpsc::error::SendError<()>> {
    loop {
        match token.has_changed() {
            Ok(true) => return link.reserve().await,
            Ok(false) if token.changed().await.is_ok() => token.mark_changed(),
            // The node is gone: there will be none.
            Ok(false) | Err(_) => std::future::pending().await,
        }
    }
}

fn closed_by_us() -> TransportError {
    TransportError::Broken("closed by us".to_owned())
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the wait is the longest, which is safe.
    getrandom::fill(&mut bytes).map_or(u32::MAX, |()| u32::from_le_bytes(bytes))
}
