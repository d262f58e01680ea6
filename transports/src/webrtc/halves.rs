//! The two halves of a link, each owned by whoever uses it. A packet is a message of the data
//! channel, in its binary form.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use outlive_core::limits::PACKET_BYTES;
use outlive_core::transport::{DirectReceiver, DirectSender, Lane, TransportError};
use tokio_util::sync::DropGuard;
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelMessage};

use super::errors;
use super::tasks::Tasks;

/// How long handing over what was sent may take when a link is closed. The other end may be gone. SCTP
/// needs a second or more to find that the last of it was lost; a session does not wait for that, and
/// sends it over another link.
const FAREWELL: Duration = Duration::from_millis(900);

/// How often it is looked whether that is done.
const FAREWELL_LOOK: Duration = Duration::from_millis(5);

/// How long it is waited for what the peer said before it closed. It is here already, and only has to
/// be handed over.
const LAST_WORDS: Duration = Duration::from_millis(100);

pub(super) struct Sender {
    channel: Arc<dyn DataChannel>,
    tasks: Tasks,
    /// Tells the connection that its link is not used any more.
    _let_go: DropGuard,
}

impl Sender {
    pub(super) fn new(channel: Arc<dyn DataChannel>, tasks: Tasks, let_go: DropGuard) -> Self {
        Self {
            channel,
            tasks,
            _let_go: let_go,
        }
    }
}

#[async_trait]
impl DirectSender for Sender {
    /// There is one data channel, and so one lane.
    async fn send(&self, _lane: Lane, packets: Vec<Bytes>) -> Result<(), TransportError> {
        for packet in packets {
            if !(1..=PACKET_BYTES).contains(&packet.len()) {
                return Err(TransportError::Broken(format!(
                    "a packet has 1 to {PACKET_BYTES} bytes, this one has {}",
                    packet.len()
                )));
            }
            let sent = self.channel.send(BytesMut::from(packet));
            match self.tasks.unless_ended(sent).await {
                Some(sent) => sent.map_err(|error| errors::sending(&error))?,
                None => return Err(errors::closed()),
            }
        }
        Ok(())
    }

    async fn close(&mut self) {
        let farewell = async {
            while let Ok(1..) = self.channel.outstanding_bytes().await {
                tokio::time::sleep(FAREWELL_LOOK).await;
            }
            // One that is closed already needs no word.
            let _ = self.channel.close().await;
        };
        let farewell = tokio::time::timeout(FAREWELL, farewell);
        let _ = self.tasks.unless_ended(farewell).await;
    }
}

pub(super) struct Receiver {
    channel: Arc<dyn DataChannel>,
    tasks: Tasks,
    /// What was said before there was a link, until it is taken.
    said: Option<RTCDataChannelMessage>,
    /// The peer has closed the channel.
    closed: bool,
}

impl Receiver {
    pub(super) const fn new(
        channel: Arc<dyn DataChannel>,
        tasks: Tasks,
        said: Option<RTCDataChannelMessage>,
    ) -> Self {
        Self {
            channel,
            tasks,
            said,
            closed: false,
        }
    }

    /// The next thing to happen on the channel. That it was closed overtakes what was said before,
    /// so it is not the end yet. Cancellation-safe.
    async fn next(&mut self) -> Option<DataChannelEvent> {
        if let Some(said) = self.said.take() {
            return Some(DataChannelEvent::OnMessage(said));
        }
        let event = self.tasks.unless_ended(self.channel.poll());
        if self.closed {
            tokio::time::timeout(LAST_WORDS, event).await.ok()??
        } else {
            event.await?
        }
    }
}

#[async_trait]
impl DirectReceiver for Receiver {
    async fn receive(&mut self) -> Result<Bytes, TransportError> {
        loop {
            match self.next().await {
                Some(DataChannelEvent::OnMessage(message)) => {
                    if message.is_string || !(1..=PACKET_BYTES).contains(&message.data.len()) {
                        let what = "it sent a message that is no packet".to_owned();
                        return Err(TransportError::Protocol(what));
                    }
                    return Ok(message.data.freeze());
                }
                Some(DataChannelEvent::OnClosing | DataChannelEvent::OnClose) => self.closed = true,
                None if self.closed => return Err(TransportError::Finished),
                None => return Err(errors::closed()),
                // Of how full our buffer is, and of what the next event tells better.
                Some(_) => {}
            }
        }
    }
}
