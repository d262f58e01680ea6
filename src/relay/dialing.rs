//! Connecting to a relay, while the network may change.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use outlive_core::transport::{RelayConnection, RelayTransport, TransportError};
use tokio::time::Instant;
use tracing::debug;

use crate::network::{Ear, News};
use crate::node::Inner;
use crate::task::pending_or;

/// A connection, and how long it took to make.
pub(super) struct Dialed {
    pub(super) connection: RelayConnection,
    pub(super) took: Duration,
}

type Attempt = BoxFuture<'static, Result<Dialed, TransportError>>;

fn attempt(inner: &Arc<Inner>, transport: &Arc<dyn RelayTransport>) -> Attempt {
    let (inner, transport) = (inner.clone(), transport.clone());
    Box::pin(async move {
        let began = Instant::now();
        let connection = transport.connect(&inner.identity).await?;
        let took = began.elapsed();
        Ok(Dialed { connection, took })
    })
}

/// Connects. When the network comes up meanwhile, an attempt over it begins at once; the first one goes on
/// beside it, for it may be the network that was there. Otherwise who hears of changes more often than an
/// attempt takes would never get there. `None` if the network went down.
pub(super) async fn dial(
    inner: &Arc<Inner>,
    transport: &Arc<dyn RelayTransport>,
    network: &mut Ear,
) -> Option<Result<Dialed, TransportError>> {
    let mut first = attempt(inner, transport);
    let mut latest: Option<Attempt> = None;
    loop {
        tokio::select! {
            dialed = &mut first => match (dialed, latest.take()) {
                (Err(error), Some(next)) => {
                    debug!(relay = transport.address(), %error, "the first attempt failed");
                    first = next;
                }
                (dialed, _) => return Some(dialed),
            },
            dialed = pending_or(&mut latest) => match dialed {
                Ok(dialed) => return Some(Ok(dialed)),
                Err(error) => {
                    debug!(relay = transport.address(), %error, "the latest attempt failed");
                }
            },
            news = network.news() => match news {
                News::Up => latest = Some(attempt(inner, transport)),
                News::Down => return None,
            },
        }
    }
}
