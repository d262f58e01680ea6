//! A host: a network of its own, and a thread that lives in it.

use std::fs::File;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns, unshare};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A host. Its network has no name: it is gone with the last who holds it, however the test ends.
pub(crate) struct Host {
    name: &'static str,
    network: Arc<File>,
    runtime: Handle,
    /// Dropped, the thread ends.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Makes a network of its own for the calling thread.
pub(crate) fn new_network() -> io::Result<File> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    File::open("/proc/thread-self/ns/net")
}

impl Host {
    pub(crate) fn new(name: &'static str) -> Self {
        let (up, started) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name.to_owned());
        let live = move || {
            let network = new_network().expect("a network");
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            up.send((network, runtime.handle().clone()))
                .expect("a lab that waits");
            // What ends it is that the sender is dropped.
            let _ = runtime.block_on(stopped);
        };
        let thread = thread.spawn(live).expect("a thread");
        let (network, runtime) = started.recv().expect("a host that has started");
        let host = Self {
            name,
            network: Arc::new(network),
            runtime,
            stop: Some(stop),
            thread: Some(thread),
        };
        host.ip("link set lo up");
        // Packets may come by another interface than the one that answers go by.
        for interfaces in ["all", "default"] {
            host.set(&format!("ipv4/conf/{interfaces}/rp_filter"), "0");
        }
        host
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// Runs something that makes its sockets in this host. All of it ends with the host.
    pub(crate) async fn run<F>(&self, future: F) -> F::Output
    where
        F: Future<Output: Send> + Send + 'static,
    {
        match self.start(future).await {
            Ok(output) => output,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// The same, without waiting for it.
    pub(crate) fn start<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.spawn(future)
    }

    /// Does something on a thread that is in this host; also what it starts is.
    pub(crate) fn enter<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let network = &self.network;
        let inside = move || {
            setns(network, CloneFlags::CLONE_NEWNET).expect("the host's network");
            what()
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(output) => output,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// `ip`, with these arguments.
    pub(crate) fn ip(&self, arguments: &str) {
        self.command(Command::new("ip").args(arguments.split_whitespace()), "");
    }

    /// `nft`, with these rules.
    pub(crate) fn nft(&self, rules: &str) {
        self.command(Command::new("nft").args(["-f", "-"]), rules);
    }

    fn command(&self, command: &mut Command, input: &str) {
        let (output, shown) = self.enter(|| {
            command.stdin(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("a tool that is installed");
            let mut stdin = child.stdin.take().expect("a pipe");
            stdin.write_all(input.as_bytes()).expect("one that reads");
            drop(stdin);
            let output = child.wait_with_output().expect("an end");
            (output, format!("{command:?}"))
        });
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{shown} at {}: {error}",
            self.name()
        );
    }

    /// Sets a value under `/proc/sys/net`.
    pub(crate) fn set(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/net/{key}");
        self.enter(|| std::fs::write(&path, value))
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// From now on packets to others are passed on.
    pub(crate) fn route(&self) {
        self.set("ipv4/ip_forward", "1");
        self.set("ipv6/conf/all/forwarding", "1");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, was shown.
            let _ = thread.join();
        }
    }
}
