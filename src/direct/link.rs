//! One direct link: bound to its session, carried as long as both want it, and gone without a trace.

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

/// Sends what the session hands over, as much at once as is there, until it lets the link go.
async fn send_all(
    sender: &mut dyn DirectSender,
    outgoing: &mut mpsc::Receiver<ToLink>,
) -> Option<TransportError> {
    let mut items = Vec::new();
    while outgoing.recv_many(&mut items, TO_LINK).await > 0 {
        let packets: Vec<Bytes> = items.drain(..).filter_map(packet).collect();
        if let Err(error) = sender.send(Lane::Interactive, packets).await {
            return Some(error);
        }
    }
    None
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
