//! Signals on their way to the peer and from it, through the session itself.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use outlive_core::engine::{SendOptions, Ticket};
use outlive_core::wire::signal::{Mailboxes, Signal};
use outlive_core::{ChannelId, Epoch, Mailbox};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::error::Error;
use crate::hub::Hub;
use crate::inbox::Inbox;
use crate::route::Route;
use crate::task::{Command, Input, STORE_RETRY};

/// Signals that are taken at once. A peer may send on for ever; links and commands are not to wait for it.
const SIGNALS: usize = 32;

/// Queues a signal.
pub(super) async fn say(
    inputs: &mpsc::Sender<Input>,
    signal: &Signal,
    ttl: Duration,
) -> Result<Ticket, Error> {
    let (reply, queued) = oneshot::channel();
    let send = Command::Send {
        channel: ChannelId::SIGNALING,
        payload: signal.to_bytes(),
        options: SendOptions {
            ttl: Some(ttl),
            once: None,
        },
        wait: false,
        reply,
    };
    command(inputs, send).await?;
    let receipt = queued.await.map_err(|_| Error::Shutdown)??;
    Ok(receipt.ticket)
}

/// Takes signals back that have not left yet, all with one write. One that has is overtaken by what
/// follows it.
pub(super) async fn take_back(
    inputs: &mpsc::Sender<Input>,
    tickets: impl IntoIterator<Item = Ticket>,
) -> Result<(), Error> {
    let mut cancelled = Vec::new();
    for ticket in tickets {
        let (reply, answer) = oneshot::channel();
        command(inputs, Command::Cancel { ticket, reply }).await?;
        cancelled.push(answer);
    }
    for answer in cancelled {
        // It ends with the session's task, and there is no more to be done about it.
        let _ = answer.await;
    }
    Ok(())
}

/// To this very task of a session: once that has gone to sleep, nothing of this wakes it.
async fn command(inputs: &mpsc::Sender<Input>, command: Command) -> Result<(), Error> {
    let sent = inputs.send(Input::Command(command)).await;
    sent.map_err(|_| Error::Shutdown)
}

/// Returns when it is durable where the peer reads.
async fn note_mailboxes(route: &Route, epoch: Epoch, mailboxes: Vec<Mailbox>) -> Result<(), Error> {
    let (reply, noted) = oneshot::channel();
    let reads = Command::Reads {
        epoch,
        mailboxes,
        reply,
    };
    route.send(reads).await?;
    noted.await.map_err(|_| route.gone())?
}

/// How far signals were taken.
pub(super) enum Taken {
    All,
    /// There may be more.
    Some,
    /// Somebody else takes them.
    None,
}

/// Hands over some of the signals that came, but for what they say of mailboxes, which the session itself goes
/// by; and has them leave the inbox.
pub(super) async fn take(route: Route, mut each: impl FnMut(Signal)) -> Result<Taken, Error> {
    let hub = Arc::clone(route.hub());
    if !hub.inboxes.take(ChannelId::SIGNALING) {
        return Ok(Taken::None);
    }
    let mut inbox = Inbox::new(hub.clone(), route.clone(), ChannelId::SIGNALING);
    for _ in 0..SIGNALS {
        let delivery = match inbox.try_next().await {
            Ok(Some(delivery)) => delivery,
            Ok(None) => return Ok(Taken::All),
            // It stays where it is; the others must not wait for it.
            Err(error) if error.is_damage() => {
                warn!(peer = %hub.peer.short(), %error, "a signal is unreadable");
                continue;
            }
            Err(error) => return Err(error),
        };
        match Signal::decode(delivery.payload()) {
            Ok(Some(Signal::Mailboxes(Mailboxes { mailboxes }))) => {
                note_mailboxes(&route, delivery.epoch(), mailboxes).await?;
            }
            Ok(Some(signal)) => each(signal),
            Ok(None) => {}
            Err(error) => warn!(peer = %hub.peer.short(), %error, "a malformed signal"),
        }
        delivery.commit().await?;
    }
    Ok(Taken::Some)
}

/// One that comes while the last is taken rings, and finds that somebody takes them, or comes to it itself.
async fn take_all(route: Route) -> Result<(), Error> {
    let more = |hub: &Hub| hub.signaled.notified().now_or_never().is_some();
    loop {
        match take(route.clone(), drop).await? {
            Taken::Some => {}
            Taken::All if more(route.hub()) => {}
            Taken::All | Taken::None => return Ok(()),
        }
    }
}

/// For a node without direct links: what signals say of those leaves the inbox unheard.
pub(crate) fn let_signals_go(route: Route) {
    let inner = route.inner().clone();
    route.hub().signaled.notify_one();
    inner.tasks.spawn(async move {
        let hub = Arc::clone(route.hub());
        tokio::select! {
            () = hub.ended.cancelled() => {}
            () = async {
                while let Err(error) = take_all(route.clone()).await {
                    warn!(peer = %hub.peer.short(), %error, "signals can't be taken");
                    tokio::time::sleep(STORE_RETRY).await;
                }
            } => {}
        }
    });
}
