//! What the data channel of a connection has to be, and what becomes of one beside it.

use outlive_core::transport::TransportError;
use webrtc::data_channel::DataChannel;
use webrtc::error::Error;

use super::errors;

/// Whether nothing is lost on a channel, and nothing overtakes. The peer may have made it, and made
/// it otherwise. Cancellation-safe.
///
/// Of a channel that the peer made, `webrtc` 0.21 tells whether it keeps the order, and not whether
/// the peer lets it give up what was lost. A peer that does so harms the link to itself: a session
/// misses what does not come, and asks for it.
///
/// # Errors
/// [`TransportError::Protocol`] if it is not such a one.
pub(super) async fn reliable(channel: &dyn DataChannel) -> Result<(), TransportError> {
    let is = async {
        let gives_up = channel.max_retransmits().await?.is_some()
            || channel.max_packet_life_time().await?.is_some();
        Ok::<_, Error>(channel.ordered().await? && !gives_up)
    };
    match is.await {
        Ok(true) => Ok(()),
        Ok(false) => Err(TransportError::Protocol(
            "its data channel is not reliable and in order".to_owned(),
        )),
        Err(error) => Err(errors::sending(&error)),
    }
}

/// Waits until something is said on a channel beside the link's, and passes over it: unread, it would
/// hold up the link. Cancellation-safe.
pub(super) async fn passed_over(beside: Option<&dyn DataChannel>) {
    let said = match beside {
        Some(channel) => channel.poll().await,
        None => None,
    };
    if said.is_none() {
        std::future::pending::<()>().await;
    }
}
