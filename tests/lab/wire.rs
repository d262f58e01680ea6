//! A wire between two hosts: two devices, whose frames are carried from one to the other.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tun_rs::{AsyncDevice, DeviceBuilder, Layer, SyncDevice};

use crate::host::Host;
use crate::weather::{Fate, Sky, Weather};

/// Bytes of the longest frame: 1,500 of IP, and the header before them.
const FRAME_BYTES: usize = 1_514;

/// Frames under way in one direction. More are lost: 100 MB.
const UNDER_WAY: usize = 65_536;

/// A wire. It lives as long as its lab.
pub(crate) struct Wire {
    name: String,
    weather: watch::Sender<State>,
    /// What became of frames, in either direction.
    pub(crate) counts: Arc<Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    weather: Weather,
    cut: bool,
}

/// Frames, of both directions.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) doubled: AtomicU64,
}

impl Wire {
    /// Joins two hosts, at these addresses, with their prefix. `carriers` is the runtime that carries
    /// the frames.
    pub(crate) fn new(
        number: usize,
        seed: u64,
        carriers: &Handle,
        ends: [(&Host, &str); 2],
    ) -> Self {
        let name = format!("w{number}");
        let (weather, state) = watch::channel(State::default());
        let counts = Arc::<Counts>::default();
        let [one, other] = ends.map(|(host, address)| device(host, &name, address));
        let _runtime = carriers.enter();
        let [one, other] = [one, other].map(|device| {
            let device = AsyncDevice::new(device).expect("a device that can be polled");
            Arc::new(device)
        });
        let ways = [(one.clone(), other.clone()), (other, one)];
        for ((from, to), seed) in ways.into_iter().zip(seed..) {
            let way = Way {
                from,
                to,
                state: state.clone(),
                sky: Sky::new(seed),
                counts: counts.clone(),
                under_way: BinaryHeap::new(),
                carried: 0,
            };
            carriers.spawn(way.carry());
        }
        Self {
            name,
            weather,
            counts,
        }
    }

    /// What its devices are called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Changes the weather, for the frames that come.
    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_modify(|state| state.weather = weather);
    }

    /// Loses all frames, those under way too. The hosts are not told.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|state| state.cut = true);
    }

    pub(crate) fn mend(&self) {
        self.weather.send_modify(|state| state.cut = false);
    }
}

fn device(host: &Host, name: &str, address: &str) -> SyncDevice {
    let builder = DeviceBuilder::new().name(name).layer(Layer::L2);
    let device = host.enter(|| builder.enable(false).build_sync());
    let device = device.unwrap_or_else(|error| panic!("no device at {}: {error}", host.name()));
    // Both ends of a wire have one hardware address: so nobody has to ask who is at the other end,
    // and no such question is lost in bad weather. Addresses are those that are given alone.
    host.ip(&format!(
        "link set {name} address 02:00:00:00:00:01 arp off addrgenmode none"
    ));
    // Nor is anybody asked whether an address of IPv6 is taken, which takes a second.
    host.ip(&format!("address add {address} dev {name} nodad"));
    host.ip(&format!("link set {name} up"));
    device
}

/// One direction.
struct Way {
    from: Arc<AsyncDevice>,
    to: Arc<AsyncDevice>,
    state: watch::Receiver<State>,
    sky: Sky,
    counts: Arc<Counts>,
    /// By when they arrive, and in which order they were sent.
    under_way: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    carried: u64,
}

impl Way {
    /// Until the device is gone.
    async fn carry(mut self) {
        let mut buffer = [0; FRAME_BYTES];
        loop {
            let due = self.under_way.peek().map(|Reverse((at, ..))| *at);
            tokio::select! {
                biased;
                () = until(due) => self.deliver(),
                received = self.from.recv(&mut buffer) => match received {
                    Ok(length) => self.take(&buffer[..length]),
                    Err(_) => return,
                },
            }
        }
    }

    fn take(&mut self, frame: &[u8]) {
        let now = Instant::now();
        self.counts.sent.fetch_add(1, Ordering::Relaxed);
        let State { weather, cut } = *self.state.borrow();
        let fate = self.sky.fate(&weather, frame.len(), now);
        match fate {
            Fate::Arrives { at, times } if !cut && self.under_way.len() < UNDER_WAY => {
                let doubled = u64::try_from(times - 1).unwrap_or(0);
                self.counts.doubled.fetch_add(doubled, Ordering::Relaxed);
                for _ in 0..times {
                    if at <= now && self.under_way.is_empty() {
                        self.send(frame);
                    } else {
                        self.carried += 1;
                        let frame = Reverse((at, self.carried, frame.to_vec()));
                        self.under_way.push(frame);
                    }
                }
            }
            Fate::Arrives { .. } | Fate::Lost => self.lose(),
        }
    }

    fn deliver(&mut self) {
        let (now, cut) = (Instant::now(), self.state.borrow().cut);
        let due = |frame: &Reverse<(Instant, u64, Vec<u8>)>| frame.0.0 <= now;
        while self.under_way.peek().is_some_and(due) {
            if let Some(Reverse((.., frame))) = self.under_way.pop() {
                if cut {
                    self.lose();
                } else {
                    self.send(&frame);
                }
            }
        }
    }

    /// Hands a frame over. The device may be down, or its host busy: then it is lost.
    fn send(&self, frame: &[u8]) {
        if self.to.try_send(frame).is_err() {
            self.lose();
        }
    }

    fn lose(&self) {
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
