//! A relay made of paper, for tests on a paused clock: it takes every envelope and delivers none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use outlive::{Identity, PeerId, RelayTransport, StoreId, TransportError};
use outlive_core::transport::{
    Class, Incoming, Outgoing, RelayConnection, RelayReceiver, RelaySender,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// The relay. Clones are ways to the same one.
#[derive(Clone)]
pub(crate) struct Paper {
    shared: Arc<Shared>,
}

struct Shared {
    /// Whether it answers; each change ends all connections.
    up: watch::Sender<bool>,
    attempts: Mutex<Vec<Instant>>,
    connections: watch::Sender<usize>,
    /// Envelopes to keep, by recipient, since they were counted last.
    kept: watch::Sender<BTreeMap<PeerId, usize>>,
}

impl Paper {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                up: watch::Sender::new(true),
                attempts: Mutex::default(),
                connections: watch::Sender::new(0),
                kept: watch::Sender::default(),
            }),
        }
    }

    pub(crate) fn up(&self) {
        self.shared.up.send_replace(true);
    }

    /// Ends all connections, and takes no new ones until it is up again.
    pub(crate) fn down(&self) {
        self.shared.up.send_replace(false);
    }

    /// When somebody tried to connect, since this was asked last.
    pub(crate) fn attempts(&self) -> Vec<Instant> {
        std::mem::take(&mut self.shared.attempts.lock().unwrap())
    }

    /// Waits until so many are connected.
    pub(crate) async fn connected(&self, count: usize) {
        let mut connections = self.shared.connections.subscribe();
        connections
            .wait_for(|&connected| connected == count)
            .await
            .expect("the relay lives");
    }

    /// Waits until it holds envelopes for so many recipients.
    pub(crate) async fn holds_for(&self, recipients: usize) -> BTreeMap<PeerId, usize> {
        let mut kept = self.shared.kept.subscribe();
        kept.wait_for(|kept| kept.len() == recipients)
            .await
            .expect("the relay lives")
            .clone()
    }
}

#[async_trait]
impl RelayTransport for Paper {
    fn address(&self) -> &str {
        "paper"
    }

    async fn connect(&self, _: &Identity) -> Result<RelayConnection, TransportError> {
        self.shared.attempts.lock().unwrap().push(Instant::now());
        let mut up = self.shared.up.subscribe();
        if !*up.borrow_and_update() {
            return Err(TransportError::Unreachable {
                address: "paper".to_owned(),
                reason: "it is down".to_owned(),
            });
        }
        self.shared.connections.send_modify(|count| *count += 1);
        let (answers, answered) = mpsc::unbounded_channel();
        Ok(RelayConnection {
            store: StoreId([7; 16]),
            sender: Box::new(Sender {
                shared: self.shared.clone(),
                answers,
            }),
            receiver: Box::new(Receiver {
                shared: self.shared.clone(),
                up,
                answered,
            }),
        })
    }
}

struct Sender {
    shared: Arc<Shared>,
    answers: mpsc::UnboundedSender<Incoming>,
}

#[async_trait]
impl RelaySender for Sender {
    async fn send(&mut self, items: Vec<Outgoing>) -> Result<(), TransportError> {
        for item in items {
            if let Outgoing::Submit {
                envelope,
                to,
                class: Class::Keep,
                ..
            } = item
            {
                self.shared
                    .kept
                    .send_modify(|kept| *kept.entry(to).or_default() += 1);
                // The receiving half may be gone: then nobody waits for the answer.
                let _ = self.answers.send(Incoming::Accepted { envelope });
            }
        }
        Ok(())
    }

    async fn close(&mut self) {}
}

struct Receiver {
    shared: Arc<Shared>,
    up: watch::Receiver<bool>,
    answered: mpsc::UnboundedReceiver<Incoming>,
}

#[async_trait]
impl RelayReceiver for Receiver {
    async fn receive(&mut self) -> Result<Incoming, TransportError> {
        tokio::select! {
            _ = self.up.changed() => Err(TransportError::Broken("it went down".to_owned())),
            Some(answer) = self.answered.recv() => Ok(answer),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.connections.send_modify(|count| *count -= 1);
    }
}
