//! What sessions hand over, on its way to a relay.

use std::sync::{Arc, Mutex};

use outlive_core::transport::{Outgoing, RelaySender, TransportError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::envelopes::Envelopes;
use super::slots::Slots;
use super::{TO_LINK, closed_by_us};
use crate::lock::lock;
use crate::task::ToLink;

/// Sends what the sessions hand over, as much at once as is there; `first` before the rest. What
/// is not to go under our name goes to `unidentified`, if that is another connection.
pub(super) async fn send_all(
    mut sender: Box<dyn RelaySender>,
    first: Vec<ToLink>,
    mut outgoing: mpsc::Receiver<ToLink>,
    unidentified: Option<mpsc::Sender<ToLink>>,
    envelopes: Arc<Mutex<Envelopes>>,
    slots: Arc<Mutex<Slots>>,
    cancel: CancellationToken,
) -> TransportError {
    let mut items = first;
    loop {
        if items.is_empty() {
            let count = tokio::select! {
                // What was handed over before the end is sent.
                biased;
                count = outgoing.recv_many(&mut items, TO_LINK) => count,
                () = cancel.cancelled() => 0,
            };
            if count == 0 {
                sender.close().await;
                return closed_by_us();
            }
        }
        let mut batch = Vec::with_capacity(items.len());
        for item in items.drain(..) {
            match (&unidentified, &item.item) {
                (Some(unidentified), Outgoing::SubmitUnidentified { .. }) => {
                    if unidentified.send(item).await.is_err() {
                        return closed_by_us();
                    }
                }
                _ => {
                    let item = numbered(item, &envelopes);
                    let mut slots = lock(&slots);
                    batch.extend(slots.addressed(item));
                }
            }
        }
        if !batch.is_empty()
            && let Err(error) = sender.send(batch).await
        {
            return error;
        }
    }
}

/// Gives an envelope the number it has on its connection.
fn numbered(
    ToLink {
        generation, item, ..
    }: ToLink,
    envelopes: &Mutex<Envelopes>,
) -> Outgoing {
    let number = |to, envelope, class| {
        let mut envelopes = lock(envelopes);
        envelopes.number(to, generation, envelope, class)
    };
    match item {
        Outgoing::Submit {
            envelope,
            to,
            class,
            ttl,
            packet,
        } => Outgoing::Submit {
            envelope: number(to, envelope, class),
            to,
            class,
            ttl,
            packet,
        },
        Outgoing::SubmitUnidentified {
            envelope,
            to,
            token,
            slot,
            class,
            ttl,
            packet,
        } => Outgoing::SubmitUnidentified {
            envelope: number(to, envelope, class),
            to,
            token,
            slot,
            class,
            ttl,
            packet,
        },
        other => other,
    }
}
