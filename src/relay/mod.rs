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
mod links;
mod second_connection;
mod sending;
mod slots;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use outlive_core::transport::{
    DeliveryToken, GoodbyeReason, Outgoing, RelayConnection, RelayTransport, TransportError,
};
use outlive_core::{PeerId, StoreId};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info};

use self::arrivals::Arrivals;
use self::attached::Attached;
use self::dialing::{Dialed, dial};
use self::ended::Ended;
use self::envelopes::Envelopes;
use self::links::{Links, Shared};
use self::second_connection::SecondConnection;
use self::sending::send_all;
use self::slots::Slots;
use crate::backoff::Backoff;
use crate::entropy;
use crate::network::{Ear, News};
use crate::node::Inner;
use crate::task::{Input, ToLink, pending_or};

/// Items on their way from sessions to a connection. When they fill it, sessions hold back.
const TO_LINK: usize = 256;

/// Sessions waiting to be attached. When they fill it, starting sessions wait.
const ATTACHING: usize = 64;

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

/// How long a relay elsewhere has to fail to count as unreachable: what is for peers that read there is then
/// left where they might come by.
const UNREACHABLE: Duration = Duration::from_secs(600);

/// How a relay is at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayState {
    /// Being dialed, or waiting for the next try.
    Connecting,
    /// Signed in.
    Connected,
    /// The last try failed, for this reason; the next one follows.
    Failing(String),
    /// Its address can never work, it was removed, or it is in use at another address.
    Closed,
}

/// A session that wants links over this relay.
pub(crate) struct Attach {
    pub(crate) peer: PeerId,
    pub(crate) inputs: mpsc::Sender<Input>,
}

/// The rank of relays elsewhere, behind all of ours: a session knows better, for each of its peer's.
pub(crate) const ELSEWHERE_RANK: u8 = 128;

/// What a relay is used as.
#[derive(Clone)]
pub(crate) struct RelayUse {
    /// Where it is, as whoever uses it says.
    pub(crate) address: String,
    /// Whether our mailbox is there.
    pub(crate) home: bool,
}

pub(crate) struct RelayTask {
    inner: Arc<Inner>,
    transport: Arc<dyn RelayTransport>,
    used: RelayUse,
    /// What opens our mailbox for others.
    token: watch::Receiver<Option<DeliveryToken>>,
    rank: u8,
    attaching: mpsc::Receiver<Attach>,
    state: watch::Sender<RelayState>,
    cancel: CancellationToken,
}

impl RelayTask {
    /// Uses a relay until that is cancelled. Returns the way for sessions to it, and how it is.
    pub(crate) fn start(
        inner: &Arc<Inner>,
        transport: Arc<dyn RelayTransport>,
        used: RelayUse,
        cancel: CancellationToken,
    ) -> (mpsc::Sender<Attach>, watch::Receiver<RelayState>) {
        let (attach, attaching) = mpsc::channel(ATTACHING);
        let (state, states) = watch::channel(RelayState::Connecting);
        let span = tracing::info_span!("relay", relay = used.address);
        let rank = if used.home {
            inner.next_rank()
        } else {
            ELSEWHERE_RANK
        };
        let task = Self {
            inner: inner.clone(),
            transport,
            used,
            token: inner.token.subscribe(),
            rank,
            attaching,
            state,
            cancel,
        };
        inner.tasks.spawn(task.run().instrument(span));
        (attach, states)
    }

    async fn run(mut self) {
        let mut attached = Attached::new();
        let (mut backoff, mut failing, mut store) = (Backoff::default(), None, None);
        let (mut in_use, mut useless) = (false, false);
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
                // Without a connection none of it is mail.
                _ = attached.hand_on() => continue,
                () = network.until_up() => {}
            }
            let (inner, transport) = (self.inner.clone(), self.transport.clone());
            let used = self.used.clone();
            let dialing = dial(&inner, &*transport, &used, &mut network);
            let connected = tokio::select! {
                () = cancel.cancelled() => break,
                result = self.while_attaching(&mut attached, dialing) => result,
            };
            let Some(connected) = connected else {
                continue;
            };
            let error = match connected {
                Ok(dialed) => {
                    store = Some(dialed.connection.store);
                    self.inner.signed_in(&self.used, dialed.connection.store);
                    failing = None;
                    let since = Instant::now();
                    info!(relay = self.transport.address(), "connected");
                    self.state.send_replace(RelayState::Connected);
                    let ended = self.carry(dialed, &mut attached, &mut network).await;
                    if since.elapsed() >= ended.time_to_settle() {
                        backoff.succeeded();
                    }
                    match ended {
                        Ended::Left => break,
                        Ended::Moved => {
                            self.state.send_replace(RelayState::Connecting);
                            continue;
                        }
                        Ended::NetworkDown => {
                            let down = "the network is down".to_owned();
                            self.state.send_replace(RelayState::Failing(down));
                            continue;
                        }
                        Ended::LedNowhere => {
                            let dead = "it leads nowhere since the network changed".to_owned();
                            TransportError::Broken(dead)
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
            in_use = self.is_the_same(&error, store);
            self.failed(&mut failing);
            useless = matches!(error, TransportError::Address { .. });
            self.state
                .send_replace(RelayState::Failing(error.to_string()));
            if in_use || useless {
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
        if !self.used.home {
            let address = &self.used.address;
            self.inner.left_elsewhere(address, in_use, useless);
        }
    }

    /// Whether a try has shown that the relay is in use at another address, ours or elsewhere. `store` is
    /// which it was before.
    fn is_the_same(&self, error: &TransportError, store: Option<StoreId>) -> bool {
        let RelayUse { address, home } = &self.used;
        let same = match error {
            _ if *home => None,
            TransportError::InUse { store, .. } => Some(*store),
            // By whom else, if not by us?
            TransportError::Closed(GoodbyeReason::Replaced) => store.filter(|store| {
                let other = self.inner.other_address(address, *store);
                other.is_some() || self.inner.is_in_use(address, *store, true)
            }),
            _ => None,
        };
        if let Some(store) = same {
            info!(relay = address, "it is in use at another address");
            self.inner.note_alias(address, store);
        }
        same.is_some()
    }

    /// Notes that a try has failed. `failing` is since when they do.
    fn failed(&self, failing: &mut Option<Instant>) {
        let since = *failing.get_or_insert_with(Instant::now);
        if !self.used.home && since.elapsed() >= UNREACHABLE {
            self.inner.unreachable(&self.used.address);
        }
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
                _ = attached.hand_on() => {}
                Some(Attach { peer, inputs }) = self.attaching.recv() => {
                    attached.insert(peer, inputs);
                }
            }
        }
    }

    /// Carries the links of all attached sessions until the connection ends.
    async fn carry(&mut self, dialed: Dialed, attached: &mut Attached, network: &mut Ear) -> Ended {
        let Dialed {
            connection,
            took,
            doubtful,
        } = dialed;
        let RelayConnection {
            store,
            sender,
            mut receiver,
        } = connection;
        if doubtful && receiver.is_stranded() {
            return Ended::Moved;
        }
        let (link, outgoing) = mpsc::channel(TO_LINK);
        let (to_unidentified, items) = mpsc::channel(TO_LINK);
        let (answering, mut answers) = mpsc::channel(TO_LINK);
        let envelopes = Arc::new(Mutex::new(Envelopes::default()));
        let unnamed = Arc::new(Mutex::new(Envelopes::default()));
        let slots = Arc::new(Mutex::new(Slots::default()));
        let (giving_up, mut given_up) = mpsc::channel(GIVEN_UP);
        let shared = Shared {
            inner: self.inner.clone(),
            used: self.used.clone(),
            rank: self.rank,
            store,
            link: link.clone(),
            giving_up,
            slots: slots.clone(),
        };
        let mut arrivals = Arrivals::new(Links::new(shared, attached));
        if self.used.home {
            self.inner.wake_sessions_with_work();
        }
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
        let sign_of_life = || {
            Box::pin(tokio::time::sleep(
                SIGN_OF_LIFE.max(took).min(SIGN_OF_LIFE_MOST),
            ))
        };
        let mut was_heard = false;
        let mut silent = None;
        if doubtful {
            self.ask_for_life(&link);
            receiver.has_heard();
            silent = Some(sign_of_life());
        }
        let ended = loop {
            let failed = |error| Ended::Failed { error, was_heard };
            tokio::select! {
                // Who ends the connection has the last words said: both halves end by themselves then.
                biased;
                () = self.cancel.cancelled() => break Ended::Left,
                error = &mut sending => break failed(error),
                error = &mut unidentified => break Ended::SecondFailed(error),
                peer = arrivals.links.attached.hand_on() => {
                    arrivals.links.wake(peer);
                }
                Some(answer) = answers.recv() => arrivals.take(answer, &unnamed).await,
                // Only when there is room: `sending` makes it, and is not polled meanwhile.
                Ok(permit) = changed(&mut self.token, &link) => {
                    if let Some(registration) = self.registration() {
                        permit.send(registration);
                    }
                }
                Ok(permit) = link.reserve(), if arrivals.let_by.has_unsaid() => {
                    arrivals.let_by.say(permit);
                }
                news = network.news() => match news {
                    News::Down => break Ended::NetworkDown,
                    News::Up if receiver.is_stranded() => break Ended::Moved,
                    News::Up => {
                        self.ask_for_life(&link);
                        if silent.is_none() {
                            // From here on.
                            receiver.has_heard();
                            silent = Some(sign_of_life());
                        }
                    }
                },
                incoming = receiver.receive() => match incoming {
                    Ok(incoming) => {
                        (silent, was_heard) = (None, true);
                        arrivals.take(incoming, &envelopes).await;
                    }
                    Err(error) => break failed(error),
                },
                // Behind what has come: a process that was held up looks at that first.
                () = pending_or(&mut silent) => {
                    if !receiver.has_heard() {
                        break Ended::LedNowhere;
                    }
                    // A message on its way takes longer.
                    silent = Some(sign_of_life());
                }
                () = arrivals.let_by.retry() => arrivals.ask_again().await,
                Some(attach) = self.attaching.recv() => arrivals.links.attach(attach),
                Some(of) = given_up.recv() => arrivals.links.rest(of),
                Some(of) = arrivals.links.resting.next() => arrivals.links.rested(&of),
            }
        };
        arrivals.links.lose_all();
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

    /// What tells the relay which token opens our mailbox.
    fn registration(&mut self) -> Option<ToLink> {
        let token = self.token.borrow_and_update();
        if !self.inner.reads_at(&self.used) {
            return None;
        }
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
    // Without randomness the wait is the longest, which is safe.
    entropy::random().map_or(u32::MAX, u32::from_le_bytes)
}
