//! The second connection to a relay, on which it is not told who we are: opened when the first
//! session needs it, and ended with the first connection, as that ends with it. So nothing in
//! flight is lost: everything is bound anew. One that fails again and again thus costs the first one
//! too, after waits that grow to half a minute.

use std::sync::{Arc, Mutex};

use outlive_core::StoreId;
use outlive_core::transport::{
    Incoming, Outgoing, Refusal, RelayConnection, RelayReceiver, RelayTransport, TransportError,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::closed_by_us;
use super::envelopes::Envelopes;
use super::sending::send_all;
use crate::lock::lock;
use crate::task::ToLink;

/// What the second connection needs.
pub(super) struct SecondConnection {
    pub(super) transport: Arc<dyn RelayTransport>,
    /// The relay's store, as it told it on the first connection.
    pub(super) store: StoreId,
    pub(super) items: mpsc::Receiver<ToLink>,
    pub(super) answers: mpsc::Sender<Incoming>,
    /// Numbers of its own: those of the first connection would tell which two belong together.
    pub(super) envelopes: Arc<Mutex<Envelopes>>,
    pub(super) cancel: CancellationToken,
}

impl SecondConnection {
    /// Carries envelopes until the connection ends. Never sends them over another one.
    pub(super) async fn run(mut self) -> TransportError {
        let Some(first) = self.items.recv().await else {
            return closed_by_us();
        };
        let connecting = self.transport.connect_unidentified();
        let connected = tokio::select! {
            connected = connecting => connected,
            () = self.cancel.cancelled() => return closed_by_us(),
        };
        match connected {
            Ok(connection) if connection.store != self.store => {
                TransportError::Protocol("it has another store on its second connection".to_owned())
            }
            Ok(connection) => self.carry(first, connection).await,
            Err(TransportError::Unidentified { .. }) => self.refuse(first).await,
            Err(error) => error,
        }
    }

    async fn carry(self, first: ToLink, connection: RelayConnection) -> TransportError {
        let RelayConnection {
            sender, receiver, ..
        } = connection;
        let sending = send_all(
            sender,
            vec![first],
            self.items,
            None,
            self.envelopes,
            Arc::default(),
            self.cancel,
        );
        tokio::select! {
            error = sending => error,
            error = receive(receiver, self.answers) => error,
        }
    }

    /// There is no such connection: what was meant for it is refused.
    async fn refuse(mut self, first: ToLink) -> TransportError {
        let mut next = Some(first);
        while let Some(ToLink {
            generation, item, ..
        }) = next
        {
            if let Outgoing::SubmitUnidentified {
                envelope,
                to,
                class,
                ..
            } = item
            {
                let envelope = lock(&self.envelopes).number(to, generation, envelope, class);
                let reason = Refusal::NotAllowed;
                let refused = Incoming::Refused { envelope, reason };
                if self.answers.send(refused).await.is_err() {
                    break;
                }
            }
            next = tokio::select! {
                next = self.items.recv() => next,
                () = self.cancel.cancelled() => None,
            };
        }
        closed_by_us()
    }
}

async fn receive(
    mut receiver: Box<dyn RelayReceiver>,
    answers: mpsc::Sender<Incoming>,
) -> TransportError {
    loop {
        match receiver.receive().await {
            Ok(incoming @ (Incoming::Accepted { .. } | Incoming::Refused { .. })) => {
                if answers.send(incoming).await.is_err() {
                    return closed_by_us();
                }
            }
            Ok(_) => {
                let what = "it delivers where nobody signed in";
                return TransportError::Protocol(what.to_owned());
            }
            Err(error) => return error,
        }
    }
}
