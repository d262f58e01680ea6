//! What a wire does to the frames on it.

use std::time::{Duration, Instant};

/// The longest that a frame waits for its turn on a wire with a rate. One that would wait longer is
/// lost, as at a router whose queue is full.
const QUEUE: Duration = Duration::from_millis(100);

/// What happens on a wire, in each of its directions. By default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Weather {
    /// How long a frame takes to the other end.
    pub(crate) delay: Duration,
    /// How much longer it may take, without overtaking others.
    pub(crate) jitter: Duration,
    /// The share of frames that are lost.
    pub(crate) loss: f64,
    /// The share of those that arrive twice.
    pub(crate) duplicate: f64,
    /// The share of those that are `late` and so overtaken by others.
    pub(crate) reorder: f64,
    /// How much later these are.
    pub(crate) late: Duration,
    /// Bits a second.
    pub(crate) rate: Option<u32>,
    /// Bytes of the longest frame that arrives. Of longer ones nobody hears.
    pub(crate) longest: Option<usize>,
}

impl Weather {
    pub(crate) const fn delayed(delay: Duration) -> Self {
        Self {
            delay,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            late: Duration::ZERO,
            rate: None,
            longest: None,
        }
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost,
    Arrives { at: Instant, times: usize },
}

/// One direction of a wire: decides about each frame in turn. With the same seed the same frames are
/// lost, doubled and late.
#[derive(Debug)]
pub(crate) struct Sky {
    chance: fastrand::Rng,
    /// When the frames before have all been put on the wire.
    free: Option<Instant>,
    /// When the last of those in order arrives.
    latest: Option<Instant>,
}

impl Sky {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            chance: fastrand::Rng::with_seed(seed),
            free: None,
            latest: None,
        }
    }

    pub(crate) fn fate(&mut self, weather: &Weather, bytes: usize, now: Instant) -> Fate {
        // Drawn for each frame alike, so that a change of one kind leaves the others as they were.
        let [loss, duplicate, reorder, jitter] = [(); 4].map(|()| self.chance.f64());
        if weather.longest.is_some_and(|longest| bytes > longest) {
            return Fate::Lost;
        }
        let mut sent = now;
        if let Some(rate) = weather.rate {
            let takes = Duration::from_secs_f64(bytes as f64 * 8.0 / f64::from(rate));
            let turn = self.free.map_or(now, |free| free.max(now));
            if turn.duration_since(now) > QUEUE {
                return Fate::Lost;
            }
            sent = turn + takes;
            self.free = Some(sent);
        }
        if loss < weather.loss {
            return Fate::Lost;
        }
        let mut at = sent + weather.delay + weather.jitter.mul_f64(jitter);
        if reorder < weather.reorder {
            at += weather.late;
        } else {
            at = self.latest.map_or(at, |latest| latest.max(at));
            self.latest = Some(at);
        }
        let times = if duplicate < weather.duplicate { 2 } else { 1 };
        Fate::Arrives { at, times }
    }
}

#[test]
fn the_same_seed_gives_the_same_weather() {
    let weather = Weather {
        jitter: Duration::from_millis(5),
        loss: 0.1,
        duplicate: 0.1,
        reorder: 0.1,
        late: Duration::from_millis(25),
        ..Weather::default()
    };
    let now = Instant::now();
    let of = |seed| {
        let mut sky = Sky::new(seed);
        let fates: Vec<_> = (0..1_000).map(|_| sky.fate(&weather, 100, now)).collect();
        fates
    };
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
    let lost = of(1).iter().filter(|fate| **fate == Fate::Lost).count();
    assert!((60..140).contains(&lost), "{lost} of 1,000 are lost");
}

#[test]
fn a_full_queue_loses_what_comes() {
    let weather = Weather {
        rate: Some(8_000_000),
        ..Weather::default()
    };
    let (mut sky, now) = (Sky::new(1), Instant::now());
    let fates: Vec<_> = (0..200).map(|_| sky.fate(&weather, 1_000, now)).collect();
    let arrive = fates.iter().filter(|fate| **fate != Fate::Lost).count();
    // 1,000 bytes a millisecond, and what fits before one has waited for too long.
    assert_eq!(arrive, 101);
    let first = Fate::Arrives {
        at: now + Duration::from_millis(1),
        times: 1,
    };
    assert_eq!(fates[0], first);
}
