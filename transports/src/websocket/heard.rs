//! When something came over a connection last: bytes, whether they make a message yet or not. On a slow line a
//! message takes longer than a relay may be silent.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::io::InspectReader;

/// A TCP connection that is listened to.
pub(super) type Tcp = InspectReader<TcpStream, Box<dyn FnMut(&[u8]) + Send>>;

/// When something came last.
#[derive(Clone)]
pub(super) struct Heard(Arc<Mutex<Instant>>);

impl Heard {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Notes whatever comes over a connection.
    pub(super) fn listen(&self, stream: TcpStream) -> Tcp {
        let heard = self.clone();
        InspectReader::new(stream, Box::new(move |_| heard.set(Instant::now())))
    }

    pub(super) fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}
