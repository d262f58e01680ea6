//! A lab: hosts and wires for one test, and the permission to have them.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tun_rs::{DeviceBuilder, Layer};

use crate::host::{Host, new_network};
use crate::wire::Wire;

/// The carriers of one test's frames. Labs know nothing of each other.
pub(crate) struct Lab {
    seed: u64,
    wires: AtomicUsize,
    carriers: Handle,
    /// Dropped, no frame is carried any more.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Lab {
    /// A lab whose weather depends on `seed`, or `None` where this system does not permit one. Then
    /// the test is skipped, and says so; with `OUTLIVE_LAB=required` it fails.
    pub(crate) fn open(seed: u64) -> Option<Self> {
        static REFUSED: OnceLock<Option<String>> = OnceLock::new();
        if let Some(why) = REFUSED.get_or_init(|| permitted().err()) {
            skip(why);
            return None;
        }
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let carriers = runtime.handle().clone();
        let thread = std::thread::Builder::new().name("wires".to_owned());
        let carry = move || {
            // What ends it is that the sender is dropped.
            let _ = runtime.block_on(stopped);
        };
        Some(Self {
            seed,
            wires: AtomicUsize::new(0),
            carriers,
            stop: Some(stop),
            thread: Some(thread.spawn(carry).expect("a thread")),
        })
    }

    /// Joins two hosts by a wire, at these addresses, with their prefix.
    pub(crate) fn wire(&self, one: (&Host, &str), other: (&Host, &str)) -> Wire {
        let number = self.wires.fetch_add(1, Ordering::Relaxed);
        let seed = self.seed * 1_000 + 2 * u64::try_from(number).expect("a few");
        Wire::new(number, seed, &self.carriers, [one, other])
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, was shown.
            let _ = thread.join();
        }
    }
}

/// Says why a test is skipped; with `OUTLIVE_LAB=required` it fails.
pub(crate) fn skip(why: &str) {
    let required = std::env::var_os("OUTLIVE_LAB").is_some_and(|is| is == "required");
    assert!(!required, "the lab is required, but {why}");
    let test = std::thread::current();
    say(&format!("SKIPPED {}: {why}", test.name().unwrap_or("")));
}

/// Says something whether the test fails or not: the test's own output is shown only if it fails.
pub(crate) fn say(what: &str) {
    let mut line = std::io::stderr().lock();
    // Nobody may be reading.
    let _ = writeln!(line, "lab: {what}");
}

/// Whether there can be a lab here, or why not.
fn permitted() -> Result<(), String> {
    for (tool, ask) in [("ip", "-V"), ("nft", "-v")] {
        let mut command = Command::new(tool);
        let asked = command.arg(ask).stdout(Stdio::null()).status();
        asked.map_err(|error| format!("no networks without the command {tool}: {error}"))?;
    }
    let tried = std::thread::spawn(|| {
        new_network().map_err(|error| format!("networks are not permitted here: {error}"))?;
        let device = DeviceBuilder::new().layer(Layer::L2).enable(false);
        let device = device.build_sync();
        device.map_err(|error| format!("devices are not permitted here: {error}"))?;
        Ok(())
    });
    tried.join().unwrap_or_else(|_| Err("no lab".to_owned()))
}
