//! The two halves of a connection, each owned by whoever uses it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::transport::{
    Incoming, Outgoing, RelayConnection, RelayReceiver, RelaySender, TransportError,
};

use super::connection::Line;
use super::shared::Shared;
use super::state::{Heard, Signed};

/// How long a connection that leads nowhere goes unnoticed.
const SILENCE: Duration = Duration::from_secs(50);

pub(super) fn split(shared: &Arc<Shared>, signed: Signed) -> RelayConnection {
    let Signed {
        number,
        line,
        store,
    } = signed;
    let place = Arc::new(Place {
        shared: shared.clone(),
        number,
        line,
    });
    RelayConnection {
        store,
        sender: Box::new(Sender(place.clone())),
        receiver: Box::new(Receiver(place)),
    }
}

/// A connection's place at the relay. Dropping it closes the connection.
struct Place {
    shared: Arc<Shared>,
    number: u64,
    line: Arc<Line>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.lock().leave(self.number, true);
    }
}

struct Sender(Arc<Place>);

struct Receiver(Arc<Place>);

#[async_trait]
impl RelaySender for Sender {
    async fn send(&mut self, items: Vec<Outgoing>) -> Result<(), TransportError> {
        let Place {
            shared,
            number,
            line,
        } = &*self.0;
        let mut items = VecDeque::from(items);
        loop {
            shared.lock().say(*number, &mut items)?;
            if items.is_empty() {
                return Ok(());
            }
            line.room.notified().await;
        }
    }

    async fn close(&mut self) {
        self.0.shared.lock().leave(self.0.number, false);
    }
}

#[async_trait]
impl RelayReceiver for Receiver {
    async fn receive(&mut self) -> Result<Incoming, TransportError> {
        let Place {
            shared,
            number,
            line,
        } = &*self.0;
        loop {
            let heard = shared.lock().hear(*number);
            match heard {
                Heard::Item(incoming) => return Ok(incoming),
                Heard::End(why) => return Err(why),
                Heard::Nothing => line.arrived.notified().await,
                Heard::Silence(since) => {
                    let told = line.arrived.notified();
                    if tokio::time::timeout_at(since + SILENCE, told)
                        .await
                        .is_err()
                    {
                        let silent = "the relay fell silent".to_owned();
                        return Err(TransportError::Broken(silent));
                    }
                }
            }
        }
    }
}
