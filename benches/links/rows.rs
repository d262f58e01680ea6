//! What is measured, in which order, and the table that comes of it.

use std::net::Ipv4Addr;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::runtime::Builder;

use crate::bare::Durability;
use crate::host::Host;
use crate::lab::Lab;
use crate::session::Pair;
use crate::weather::Weather;
use crate::{bare, session};

/// How often each figure is measured.
const ROUNDS: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Quic,
    WebRtc,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::WebRtc => "webrtc",
        }
    }
}

/// When enough was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    time: Duration,
    bytes: u64,
}

impl Goal {
    /// The same number of bytes, or four times as long. In a few seconds a slow link has hardly come up
    /// to its speed, and a file has its beginning and end beside its bytes.
    fn patient(self) -> Self {
        Self {
            time: 4 * self.time,
            ..self
        }
    }

    /// The time that is left, unless it is reached.
    pub(crate) fn left(&self, began: Instant, bytes: u64) -> Option<Duration> {
        let left = self.time.checked_sub(began.elapsed());
        left.filter(|left| bytes < self.bytes && !left.is_zero())
    }
}

/// What came, and in what time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goodput {
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
}

impl Goodput {
    fn megabytes(&self) -> f64 {
        self.bytes as f64 / self.took.as_secs_f64() / 1e6
    }
}

/// The two hosts and the wire.
pub(crate) struct Ends {
    pub(crate) hosts: [Host; 2],
    _lab: Lab,
}

impl Ends {
    pub(crate) const ADDRESSES: [Ipv4Addr; 2] =
        [Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 18, 0, 2)];

    fn new(seed: u64, weather: Weather) -> Option<Self> {
        let lab = Lab::open(seed)?;
        let hosts = ["near", "far"].map(Host::new);
        let [near, far] = Self::ADDRESSES.map(|address| format!("{address}/24"));
        lab.wire((&hosts[0], &near), (&hosts[1], &far)).set(weather);
        Some(Self { hosts, _lab: lab })
    }
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Roads by name.
fn roads() -> [(&'static str, Weather); 6] {
    let lossy = |delay, loss| Weather {
        loss,
        ..Weather::delayed(delay)
    };
    let late = Weather {
        reorder: 0.05,
        late: ms(25),
        ..Weather::delayed(ms(10))
    };
    [
        ("no impairment", Weather::default()),
        ("RTT 2 ms", Weather::delayed(ms(1))),
        ("RTT 50 ms", Weather::delayed(ms(25))),
        ("RTT 50 ms, loss 1 %", lossy(ms(25), 0.01)),
        ("RTT 200 ms, loss 5 %", lossy(ms(100), 0.05)),
        ("RTT 20 ms, 5 % of the frames 25 ms late", late),
    ]
}

/// A row, once.
struct Round {
    bare: Goodput,
    file: Goodput,
    messages: Goodput,
    bare_trips: Vec<Duration>,
    written_trips: Vec<Duration>,
    trips: Vec<Duration>,
}

impl Round {
    /// Of the bare link's goodput, what the file had.
    fn share(&self) -> f64 {
        self.file.megabytes() / self.bare.megabytes()
    }
}

async fn round(
    seed: u64,
    weather: Weather,
    kind: Kind,
    goal: Goal,
) -> anyhow::Result<Option<Round>> {
    // Each gets a wire of its own: what went wrong on one is no burden for the next.
    let ends = [(); 6].map(|()| Ends::new(seed, weather));
    let [
        Some(first),
        Some(second),
        Some(third),
        Some(fourth),
        Some(fifth),
        Some(sixth),
    ] = ends
    else {
        return Ok(None);
    };
    let bare = bare::goodput(&first, kind, goal.patient()).await?;
    let file = Pair::open(&second, kind).await?;
    let file = file.file(&second, bare.bytes.max(64 * 1024)).await?;
    let messages = Pair::open(&third, kind).await?;
    let messages = messages.messages(&third, goal).await?;
    // Where each takes long and some are lost, a few trips tell nothing.
    let time = 2 * goal.time;
    let bare_trips = bare::round_trips(&fourth, kind, time, Durability::None).await?;
    let written_trips = bare::round_trips(&fifth, kind, time, Durability::Writes).await?;
    let trips = Pair::open(&sixth, kind).await?;
    let trips = trips.round_trips(&sixth, time).await?;
    Ok(Some(Round {
        bare,
        file,
        messages,
        bare_trips,
        written_trips,
        trips,
    }))
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print(road: &str, kind: Kind, rounds: &[Round]) {
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    let shares = || rounds.iter().map(Round::share);
    let (least, most) = (
        shares().fold(f64::INFINITY, f64::min),
        shares().fold(0.0, f64::max),
    );
    let trip = |of: &[Duration]| median(of.iter().map(|trip| trip.as_secs_f64() * 1e3).collect());
    let bare_trip = median(rounds.iter().map(|round| trip(&round.bare_trips)).collect());
    let written = median(
        rounds
            .iter()
            .map(|round| trip(&round.written_trips))
            .collect(),
    );
    let own_trip = median(rounds.iter().map(|round| trip(&round.trips)).collect());
    println!(
        "| {road} | {} | {:.2} | {:.2} | **{:.2}** ({least:.2} to {most:.2}) | {:.2} | {bare_trip:.2} | {written:.2} | {own_trip:.2} | **{:.2}** |",
        kind.name(),
        of(|round| round.bare.megabytes()),
        of(|round| round.file.megabytes()),
        of(Round::share),
        of(|round| round.messages.megabytes()),
        own_trip / bare_trip,
    );
}

pub(crate) fn measure() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let measured = arguments.iter().any(|argument| argument == "--bench");
    let asked = arguments
        .iter()
        .find_map(|argument| argument.strip_prefix("--rounds="));
    let asked = asked.map(str::parse::<NonZeroU64>).transpose();
    let asked = asked.context("--rounds takes a number from 1 on")?;
    let words: Vec<_> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let wanted = |road: &str, kind: Kind| {
        words
            .iter()
            .all(|word| road.contains(*word) || kind.name() == *word)
    };
    // Not measured: a look at whether it works.
    let (rounds, goal) = if measured {
        (
            asked.map_or(ROUNDS, NonZeroU64::get),
            Goal {
                time: ms(4_000),
                bytes: 512 << 20,
            },
        )
    } else {
        (
            1,
            Goal {
                time: ms(400),
                bytes: 4 << 20,
            },
        )
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    println!(
        "| path | link | bare MB/s | file MB/s | file / bare | durable 16 KiB messages MB/s | bare round trip ms | and written ms | of a message ms | message / bare |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (road, weather) in roads() {
        for kind in [Kind::Quic, Kind::WebRtc] {
            if !wanted(road, kind) || (!measured && weather != Weather::default()) {
                continue;
            }
            let mut done = Vec::new();
            for seed in 1..=rounds {
                match runtime.block_on(round(seed, weather, kind, goal))? {
                    Some(round) => done.push(round),
                    None => return Ok(()),
                }
            }
            print(road, kind, &done);
        }
    }
    let sled = session::sled(goal)?;
    println!(
        "one sled takes {:.0} MB/s of the same payloads, each 64 of them flushed to the system",
        sled.megabytes()
    );
    Ok(())
}
