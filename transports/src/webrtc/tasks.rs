//! The tasks of a connection. `webrtc` starts them through this, so that closing can wait for all of
//! them, and dropping leaves none.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime,
    TokioRuntime,
};

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How long `webrtc` sleeps, at most, while a connection comes about. When ICE has found a way, DTLS
/// is done, or SCTP is up, the next of them has something to say, and `webrtc` 0.21 sends it when it
/// wakes: for something that comes, or for a timer of ICE. Each would wait for up to 150 ms.
const NAP: Duration = Duration::from_millis(5);

#[derive(Clone, Debug)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    cut: CancellationToken,
    ended: CancellationToken,
    /// The connection does not come about any more: it has, or is closed.
    settled: Arc<AtomicBool>,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            cut: CancellationToken::new(),
            ended: CancellationToken::new(),
            settled: Arc::default(),
        }
    }

    /// From now on they sleep as long as they like.
    pub(super) fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn are_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// Does something that the peer's bytes go into. None if that panicked: what a parser trips over
    /// is no reason for us to fall.
    pub(super) async fn shielded<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let work = self.cut.clone().run_until_cancelled_owned(work);
        self.tracker.spawn(work).await.ok().flatten()
    }

    /// Waits until one of them has ended: then the connection is over. Cancellation-safe.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// What `work` comes to, or none if the connection is over before.
    pub(super) async fn unless_ended<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.ended() => None,
        }
    }

    /// Ends those that go on, when it is dropped.
    pub(super) fn cut_on_drop(&self) -> DropGuard {
        self.cut.clone().drop_guard()
    }

    /// Ends those that go on.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Waits until there are none. Cancellation-safe.
    pub(super) async fn gone(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

impl Runtime for Tasks {
    fn spawn(&self, task: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        // Rung however it ends, by a panic too.
        let ended = self.ended.clone().drop_guard();
        let cut = self.cut.clone();
        let task = self.tracker.spawn(async move {
            let _ended = ended;
            cut.run_until_cancelled_owned(task).await;
        });
        Box::new(Task(task.abort_handle()))
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn wrap_tcp_listener(&self, listener: TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        TokioRuntime.wrap_tcp_listener(listener)
    }

    /// Never: nothing here uses TCP, and a peer names the addresses.
    fn connect_tcp<'a>(&'a self, _: SocketAddr) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        TokioRuntime.resolve_host(host)
    }

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        let settled = self.settled.load(Ordering::Relaxed);
        let most = if settled { Duration::MAX } else { NAP };
        TokioRuntime.sleep(duration.min(most))
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }

    fn yield_now(&self) -> Boxed<'static, ()> {
        TokioRuntime.yield_now()
    }
}

/// A task that goes on when this is dropped.
struct Task(AbortHandle);

impl JoinHandle for Task {
    fn detach(&self) {}

    fn abort(&self) {
        self.0.abort();
    }

    fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sleeps_are_short_until_the_connection_has_come_about() {
        const LONG: Duration = Duration::from_secs(1);
        let tasks = Tasks::new();
        let began = Instant::now();
        tasks.sleep(LONG).await;
        assert!(began.elapsed() <= NAP + Duration::from_millis(1));
        tasks.settle();
        let began = Instant::now();
        tasks.sleep(LONG).await;
        assert!(began.elapsed() >= LONG);
    }
}
