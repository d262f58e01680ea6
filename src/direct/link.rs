//! One direct link: bound to its session, carried as long as both want it, and gone without a trace.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
use crate::task::{Binding, Input, ToLink};

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

/// Packets of files that wait for their turn on a link. More than a session has on its way to a peer
/// that has not answered ([`DIRECT_WINDOW`](outlive_core::limits::DIRECT_WINDOW)), so that they do not
/// fill the way to the link; beyond it, the session holds back.
const BULK_WAITING: usize = 512;

/// A link that is bound, for whoever made it.
pub(super) struct Carried {
    /// Ends the link: the session goes on over others.
    pub(super) retire: CancellationToken,
    /// It has ended.
    pub(super) ended: CancellationToken,
    /// Packets that came over it.
    pub(super) heard: Arc<AtomicU64>,
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
        retire: inner.ways.child_token(),
        ended: CancellationToken::new(),
        heard: Arc::default(),
    };
    let span = tracing::info_span!("link", peer = %link.peer.short(), %generation, transport = kind.transport);
    let (retire, heard) = (carried.retire.clone(), carried.heard.clone());
    let ended = carried.ended.clone();
    let run = async move {
        run(link, inputs, kind, generation, retire, &heard, &ended).await;
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
    retire: CancellationToken,
    heard: &AtomicU64,
    ended: &CancellationToken,
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
            error = send_all(&mut *sender, &mut outgoing) => error,
            error = receive_all(&mut *receiver, generation, &inputs, heard) => error,
            () = retire.cancelled() => None,
        };
        if let Some(error) = error {
            debug!(%error, "the link broke");
        }
        ended.cancel();
        // The session goes on over others before this one is closed. One that is gone needs no word.
        let _ = inputs.send(Input::Lost { generation }).await;
    }
    ended.cancel();
    sender.close().await;
}

/// Sends what the session hands over, as much at once as is there, until it lets the link go. Bulk
/// goes packet by packet, when nothing else is there: what comes meanwhile waits for one of them.
async fn send_all(
    sender: &mut dyn DirectSender,
    outgoing: &mut mpsc::Receiver<ToLink>,
) -> Option<TransportError> {
    let mut items = Vec::new();
    let mut bulk = VecDeque::new();
    loop {
        if bulk.is_empty() {
            if outgoing.recv_many(&mut items, TO_LINK).await == 0 {
                return None;
            }
        } else {
            while bulk.len() + items.len() < BULK_WAITING
                && let Ok(item) = outgoing.try_recv()
            {
                items.push(item);
            }
        }
        let mut packets = Vec::new();
        for item in items.drain(..) {
            let lane = item.lane;
            match (packet(item), lane) {
                (Some(packet), Lane::Interactive) => packets.push(packet),
                (Some(packet), Lane::Bulk) => bulk.push_back(packet),
                (None, _) => {}
            }
        }
        let sent = if !packets.is_empty() {
            sender.send(Lane::Interactive, packets).await
        } else if let Some(packet) = bulk.pop_front() {
            sender.send(Lane::Bulk, vec![packet]).await
        } else {
            Ok(())
        };
        if let Err(error) = sent {
            return Some(error);
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
        let input = Input::Packet {
            generation,
            envelope: None,
            packet,
            claimed: false,
        };
        if inputs.send(input).await.is_err() {
            return None;
        }
    }
}
