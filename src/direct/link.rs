//! One direct link: bound to its session, carried as long as both want it, and gone without a trace.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use outlive_core::Generation;
use outlive_core::link::LinkClass;
use outlive_core::transport::{
    DirectLink, DirectReceiver, DirectSender, Lane, Outgoing, TransportError,
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug};

use crate::node::Inner;
use crate::task::{Arrival, Binding, Input, ToLink, pending_or};

/// How long a link that its session lets go may take to bring what was handed over.
const FAREWELL: Duration = Duration::from_secs(1);

/// How often it is looked whether the session has let a link go that takes no more from it: short
/// beside [`FAREWELL`], which begins then.
const LOOK: Duration = Duration::from_millis(200);

/// Packets on their way from a session to a link. When they fill it, the session holds back.
const TO_LINK: usize = 64;

/// What sort of link it is.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// What makes it.
    pub(super) transport: &'static str,
    /// Those with a lower one go before it.
    pub(super) rank: u8,
}

/// Packets of files that wait for their turn on a link. As many as a session has on its way to a peer
/// that has not answered ([`DIRECT_WINDOW`](outlive_core::limits::DIRECT_WINDOW)), so that they do not
/// fill the way to the link; beyond it, the session holds back.
const BULK_WAITING: usize = 512;

/// A link that is bound, for whoever made it.
#[derive(Clone)]
pub(super) struct Carried {
    /// Ends the link: the session goes on over others.
    pub(super) retire: CancellationToken,
    /// It has ended.
    pub(super) ended: CancellationToken,
    /// Whether the peer let it go, once it has ended.
    parted: Arc<AtomicBool>,
    /// Packets that came over it.
    pub(super) heard: Arc<AtomicU64>,
}

impl Carried {
    /// Whether it has ended because the peer let it go, and for nothing that is wrong.
    pub(super) fn is_parted(&self) -> bool {
        self.parted.load(Ordering::Relaxed)
    }
}

/// Binds a link to its session. Its task ends when the link breaks, is retired, or is let go of by
/// the session; then `bell` rings.
pub(super) fn carry(
    inner: &Arc<Inner>,
    inputs: mpsc::Sender<Input>,
    kind: Kind,
    link: DirectLink,
    bell: Arc<Notify>,
) -> Carried {
    let generation = inner.next_generation();
    let carried = Carried {
        retire: inner.links_cancel.child_token(),
        ended: CancellationToken::new(),
        parted: Arc::default(),
        heard: Arc::default(),
    };
    let span = tracing::info_span!("link", peer = %link.peer.short(), %generation, transport = kind.transport);
    let link_of = carried.clone();
    let run = async move {
        run(link, inputs, kind, generation, &link_of).await;
        bell.notify_one();
    };
    inner.sessions.spawn(run.instrument(span));
    carried
}

async fn run(
    link: DirectLink,
    inputs: mpsc::Sender<Input>,
    kind: Kind,
    generation: Generation,
    carried: &Carried,
) {
    let DirectLink {
        address,
        mut sender,
        mut receiver,
        ..
    } = link;
    let (to_link, mut outgoing) = mpsc::channel(TO_LINK);
    let binding = Binding {
        generation,
        class: LinkClass::Direct,
        home: false,
        rank: kind.rank,
        transport: kind.transport,
        address: address.to_string(),
        link: to_link,
        given_up: None,
        again: false,
    };
    if inputs.send(Input::Bind(binding)).await.is_ok() {
        let error = tokio::select! {
            // What was handed over before the end is sent.
            biased;
            error = send_all(&*sender, &mut outgoing) => error,
            error = receive_all(&mut *receiver, generation, &inputs, &carried.heard) => error,
            () = carried.retire.cancelled() => None,
        };
        if let Some(error) = error {
            let parted = matches!(error, TransportError::Finished);
            carried.parted.store(parted, Ordering::Relaxed);
            debug!(%error, "the link ended");
        }
        carried.ended.cancel();
        // The session goes on over others before this one is closed. One that is gone needs no word.
        let _ = inputs.send(Input::Lost { generation }).await;
    }
    carried.ended.cancel();
    sender.close().await;
}

/// Sends what the session hands over, as much at once as is there, until it lets the link go. Bulk
/// goes packet by packet, and nothing waits while one of them does. What is stuck then does not keep
/// the link: it is in the outbox, and goes over the next.
async fn send_all(
    sender: &dyn DirectSender,
    outgoing: &mut mpsc::Receiver<ToLink>,
) -> Option<TransportError> {
    let (mut items, mut words, mut bulk) = (Vec::new(), Vec::new(), VecDeque::new());
    let (mut saying, mut sending, mut open) = (None, None, true);
    let mut farewell = None;
    while open || saying.is_some() || sending.is_some() {
        if farewell.is_none() && outgoing.is_closed() {
            farewell = Some(Box::pin(tokio::time::sleep(FAREWELL)));
        }
        // While something is being sent no more is taken than what follows it.
        let takes = open && words.is_empty() && bulk.len() < BULK_WAITING;
        let sent = tokio::select! {
            biased;
            count = outgoing.recv_many(&mut items, TO_LINK), if takes => {
                open = count > 0;
                sort(&mut items, &mut words, &mut bulk);
                Ok(())
            }
            sent = pending_or(&mut saying) => sent,
            sent = pending_or(&mut sending) => sent,
            () = pending_or(&mut farewell) => return None,
            () = tokio::time::sleep(LOOK), if !takes && farewell.is_none() => Ok(()),
        };
        if let Err(error) = sent {
            return Some(error);
        }
        if saying.is_none() && !words.is_empty() {
            saying = Some(sender.send(Lane::Interactive, std::mem::take(&mut words)));
        }
        if sending.is_none() {
            let next = bulk.pop_front();
            sending = next.map(|packet| sender.send(Lane::Bulk, vec![packet]));
        }
    }
    None
}

/// Puts each packet where those of its lane wait.
fn sort(items: &mut Vec<ToLink>, words: &mut Vec<Bytes>, bulk: &mut VecDeque<Bytes>) {
    for item in items.drain(..) {
        let lane = item.lane;
        match (packet(item), lane) {
            (Some(packet), Lane::Interactive) => words.push(packet),
            (Some(packet), Lane::Bulk) => bulk.push_back(packet),
            (None, _) => {}
        }
    }
}

/// What of a session's words is for a peer itself: packets, and not what is said to a mailbox.
fn packet(item: ToLink) -> Option<Bytes> {
    match item.item {
        Outgoing::Submit { packet, .. } => Some(packet),
        _ => None,
    }
}

async fn receive_all(
    receiver: &mut dyn DirectReceiver,
    generation: Generation,
    inputs: &mpsc::Sender<Input>,
    heard: &AtomicU64,
) -> Option<TransportError> {
    loop {
        let packet = match receiver.receive().await {
            Ok(packet) => packet,
            Err(error) => return Some(error),
        };
        heard.fetch_add(1, Ordering::Relaxed);
        let input = Input::Packet(Arrival {
            generation,
            envelope: None,
            packet,
            claimed: false,
        });
        if inputs.send(input).await.is_err() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use outlive_core::transport::Class;
    use outlive_core::{EnvelopeId, Identity};
    use tokio::sync::Semaphore;

    use super::*;

    /// Takes nothing, ever.
    struct Stuck;

    #[async_trait]
    impl DirectSender for Stuck {
        async fn send(&self, _: Lane, _: Vec<Bytes>) -> Result<(), TransportError> {
            std::future::pending().await
        }

        async fn close(&mut self) {}
    }

    /// Takes as much of bulk as it may.
    struct Narrow {
        may: Arc<Semaphore>,
        sent: mpsc::Sender<Bytes>,
    }

    #[async_trait]
    impl DirectSender for Narrow {
        async fn send(&self, lane: Lane, packets: Vec<Bytes>) -> Result<(), TransportError> {
            if lane == Lane::Bulk {
                self.may.acquire().await.expect("it is open").forget();
            }
            for packet in packets {
                self.sent.send(packet).await.expect("somebody looks");
            }
            Ok(())
        }

        async fn close(&mut self) {}
    }

    fn item(lane: Lane, packet: &'static [u8]) -> ToLink {
        ToLink {
            generation: Generation::at_start(1),
            lane,
            item: Outgoing::Submit {
                envelope: EnvelopeId(1),
                to: Identity::from_seed([1; 32]).peer_id(),
                class: Class::Keep,
                ttl: 1,
                packet: Bytes::from_static(packet),
            },
        }
    }

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        let done = tokio::time::timeout(Duration::from_secs(1), future).await;
        done.expect("nobody holds it up")
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_waits_while_bulk_does_and_what_was_handed_over_is_sent() {
        let may = Arc::new(Semaphore::new(0));
        let (sent, mut seen) = mpsc::channel(8);
        let sender = Narrow {
            may: may.clone(),
            sent,
        };
        let (to_link, mut outgoing) = mpsc::channel(TO_LINK);
        let sending = tokio::spawn(async move { send_all(&sender, &mut outgoing).await });
        let hand = async |lane, packet| {
            let handed = to_link.send(item(lane, packet)).await;
            handed.expect("it is open");
        };
        hand(Lane::Bulk, b"a part").await;
        hand(Lane::Bulk, b"another").await;
        hand(Lane::Interactive, b"a word").await;
        assert_eq!(soon(seen.recv()).await.as_deref(), Some(&b"a word"[..]));
        hand(Lane::Interactive, b"one more").await;
        assert_eq!(soon(seen.recv()).await.as_deref(), Some(&b"one more"[..]));
        may.add_permits(1);
        assert_eq!(soon(seen.recv()).await.as_deref(), Some(&b"a part"[..]));
        drop(to_link);
        may.add_permits(1);
        assert_eq!(soon(seen.recv()).await.as_deref(), Some(&b"another"[..]));
        assert!(soon(sending).await.expect("no panic").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn bulk_that_is_stuck_does_not_keep_a_link_that_was_let_go() {
        let (sent, _seen) = mpsc::channel(8);
        let may = Arc::new(Semaphore::new(0));
        let sender = Narrow { may, sent };
        let (to_link, mut outgoing) = mpsc::channel(TO_LINK);
        let sending = tokio::spawn(async move { send_all(&sender, &mut outgoing).await });
        for packet in [&b"a part"[..], b"another"] {
            let handed = to_link.send(item(Lane::Bulk, packet)).await;
            handed.expect("it is open");
        }
        drop(to_link);
        let ended = tokio::time::timeout(2 * FAREWELL, sending).await;
        ended.expect("it ends").expect("no panic");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_stuck_does_not_keep_a_link_that_was_let_go_whatever_it_is() {
        let (to_link, mut outgoing) = mpsc::channel(TO_LINK);
        let sending = tokio::spawn(async move { send_all(&Stuck, &mut outgoing).await });
        let mut handed = 0;
        let hand = || to_link.send(item(Lane::Interactive, b"a word"));
        while let Ok(taken) = tokio::time::timeout(FAREWELL, hand()).await {
            taken.expect("it is open");
            handed += 1;
        }
        // What is being sent, what follows it, and what waits before that.
        assert!(handed <= 3 * TO_LINK, "{handed}");
        drop(to_link);
        let ended = tokio::time::timeout(2 * FAREWELL, sending).await;
        ended.expect("it ends").expect("no panic");
    }
}
