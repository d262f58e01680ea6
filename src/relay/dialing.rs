//! Connecting to a relay, while the network may change.

use std::time::Duration;

use outlive_core::transport::{RelayConnection, RelayTransport, TransportError};
use tokio::time::Instant;
use tracing::debug;

use super::RelayUse;
use crate::network::{Ear, News};
use crate::node::Inner;

/// How long an attempt may go on after the network is said to have come up meanwhile, if it is not the first:
/// it may be over a network that is gone. The next one has twice as long each time, or whoever hears of changes
/// more often than an attempt takes would never get there. Two at once would push each other out at the relay.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection.
pub(super) struct Dialed {
    pub(super) connection: RelayConnection,
    /// How long it took to make.
    pub(super) took: Duration,
    /// Whether the network was said to have come up since it was begun.
    pub(super) doubtful: bool,
}

/// Connects. When the network comes up meanwhile, it begins anew. `None` if the network went down.
pub(super) async fn dial(
    inner: &Inner,
    transport: &dyn RelayTransport,
    used: &RelayUse,
    network: &mut Ear,
) -> Option<Result<Dialed, TransportError>> {
    let mut patience = Duration::ZERO;
    loop {
        let began = Instant::now();
        let in_use = |store, tied| !used.home && inner.is_in_use(&used.address, store, tied);
        let mut connecting = transport.connect_apart(&inner.identity, &in_use);
        let mut doubtful = false;
        loop {
            tokio::select! {
                biased;
                connected = &mut connecting => match connected {
                    // Over the network that was there, it seems.
                    Err(error) if doubtful && !matches!(error, TransportError::Address { .. }) => {
                        debug!(relay = transport.address(), %error, "not connected");
                        break;
                    }
                    connected => {
                        return Some(connected.map(|connection| Dialed {
                            connection,
                            took: began.elapsed(),
                            doubtful,
                        }));
                    }
                },
                news = network.news() => match news {
                    News::Up => doubtful = true,
                    News::Down => return None,
                },
                () = tokio::time::sleep_until(began + patience), if doubtful => break,
            }
        }
        debug!(
            relay = transport.address(),
            "dialed anew over the network that came up"
        );
        patience = PATIENCE.max(patience * 2);
    }
}
