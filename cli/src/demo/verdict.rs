//! What the demo finds out, and how it tells it.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::report::Came;

/// What the demo found out.
#[derive(Debug, Default, Serialize)]
pub(super) struct Verdict {
    pub(super) event: &'static str,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) out_of_order: u64,
    pub(super) cuts: u64,
    pub(super) direct_cuts: u64,
    pub(super) ice_restarts: u64,
    pub(super) reconnects: u64,
    pub(super) rebind_median_ms: f64,
    pub(super) rebind_max_ms: f64,
    pub(super) seconds: f64,
    /// Messages that came, by what makes the links they came over first.
    pub(super) messages: BTreeMap<String, u64>,
    /// Packets that came, by what makes the links they came over.
    pub(super) packets: BTreeMap<String, u64>,
}

/// What came from one peer to the other.
#[derive(Default)]
pub(super) struct Tally {
    times: BTreeMap<u64, u64>,
    highest: u64,
    out_of_order: u64,
    pub(super) delivered: bool,
    /// What came, by what makes the links.
    pub(super) came: BTreeMap<String, Came>,
    /// What makes the link that carries what the peer sends.
    pub(super) carrier: Option<String>,
}

impl Tally {
    pub(super) fn received(&mut self, number: u64, redelivered: bool) {
        *self.times.entry(number).or_default() += 1;
        if number < self.highest && !redelivered {
            self.out_of_order += 1;
        }
        self.highest = self.highest.max(number);
    }

    /// How many different messages came.
    pub(super) fn count(&self) -> u64 {
        self.times.len() as u64
    }

    /// Of how many messages it is told which links brought them.
    pub(super) fn told(&self) -> u64 {
        self.came.values().map(|came| came.messages).sum()
    }
}

impl Verdict {
    /// Over what came, of `each` messages, and how long it took to have links to the relay again.
    pub(super) fn conclude(&mut self, tallies: &[Tally], each: u64, mut rebinds: Vec<u64>) {
        self.messages = messages(tallies);
        self.packets = by_link(tallies, |came| came.packets);
        for tally in tallies {
            self.lost += (1..=each)
                .filter(|number| !tally.times.contains_key(number))
                .count() as u64;
            self.duplicated += tally.times.values().map(|times| times - 1).sum::<u64>();
            self.out_of_order += tally.out_of_order;
        }
        rebinds.sort_unstable();
        let ms = |micros: Option<&u64>| micros.map_or(0.0, |micros| *micros as f64 / 1_000.0);
        self.reconnects = rebinds.len() as u64;
        self.rebind_median_ms = ms(rebinds.get(rebinds.len() / 2));
        self.rebind_max_ms = ms(rebinds.last());
    }

    pub(super) const fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.out_of_order == 0
    }

    pub(super) fn tell(&self, json: bool) -> Result<()> {
        if json {
            crate::output::json(self)?;
            return Ok(());
        }
        let text = format!(
            "sent {}\nreceived {}\nlost {}\nduplicated {}\nout of order {}\nlinks to the relay cut {}\n\
             direct links cut {}\nICE restarts {}\nreconnects {}\n\
             time to rebind {:.1} ms (median), {:.1} ms (longest), back-off included\n\
             messages {}\npackets {}\ntook {:.1} s",
            self.sent,
            self.received,
            self.lost,
            self.duplicated,
            self.out_of_order,
            self.cuts,
            self.direct_cuts,
            self.ice_restarts,
            self.reconnects,
            self.rebind_median_ms,
            self.rebind_max_ms,
            shares(&self.messages),
            shares(&self.packets),
            self.seconds
        );
        crate::output::line(text.as_bytes())
    }
}

/// Which links brought the messages to both peers.
pub(super) fn messages(tallies: &[Tally]) -> BTreeMap<String, u64> {
    by_link(tallies, |came| came.messages)
}

fn by_link(tallies: &[Tally], of: impl Fn(&Came) -> u64) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (transport, came) in tallies.iter().flat_map(|tally| &tally.came) {
        *all.entry(transport.clone()).or_default() += of(came);
    }
    all
}

pub(super) fn shares(counts: &BTreeMap<String, u64>) -> String {
    let all = counts.values().sum::<u64>().max(1) as f64;
    let share = |(transport, count): (&String, &u64)| {
        format!("{:.0} % over {transport}", *count as f64 * 100.0 / all)
    };
    counts.iter().map(share).collect::<Vec<_>>().join(", ")
}
