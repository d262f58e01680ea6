//! Signals on their way to the peer, through the session itself.

use std::time::Duration;

use outlive_core::ChannelId;
use outlive_core::engine::{SendOptions, Ticket};
use outlive_core::wire::signal::Signal;
use tokio::sync::{mpsc, oneshot};

use crate::error::Error;
use crate::task::{Command, Input};

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

/// Takes a signal back, if it has not left yet. One that has is overtaken by what follows it.
pub(super) async fn take_back(inputs: &mpsc::Sender<Input>, ticket: Ticket) -> Result<(), Error> {
    let (reply, cancelled) = oneshot::channel();
    command(inputs, Command::Cancel { ticket, reply }).await?;
    let _ = cancelled.await;
    Ok(())
}

/// To this very task of a session: once that has gone to sleep, nothing of this wakes it.
async fn command(inputs: &mpsc::Sender<Input>, command: Command) -> Result<(), Error> {
    let sent = inputs.send(Input::Command(command)).await;
    sent.map_err(|_| Error::Shutdown)
}
