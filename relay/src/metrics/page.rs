//! The numbers as Prometheus reads them. docs/OPERATIONS.md has a table of them for who operates a relay.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_text};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::counts::Counts;
use crate::health::Health;
use crate::refusals::{RefusalLog, Refused};

/// What every name begins with.
const PREFIX: &str = "outlive_relay";

/// Where the numbers are.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) counts: Arc<Counts>,
    pub(crate) refusals: Arc<RefusalLog>,
    pub(crate) health: Arc<Health>,
}

impl Sources {
    /// All of them, as they are now.
    pub(crate) fn page(&self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self.clone()));
        let mut page = String::new();
        prometheus_text::encode(&mut page, &registry)?;
        Ok(page)
    }
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut page = Page(encoder);
        self.connections(&mut page)?;
        self.envelopes(&mut page)?;
        page.counter(
            "stun_answers",
            "STUN requests that were answered.",
            self.counts.stun_answers.get(),
        )?;
        page.counter(
            "stun_refused",
            "Packets for STUN that were not answered, as their addresses send too many.",
            self.refusals.total(Refused::Stun),
        )?;
        page.counter(
            "store_writes_failed",
            "Writes that the store did not take.",
            self.health.failed_writes(),
        )?;
        let works = self.health.failure().is_none();
        page.gauge(
            "store_writable",
            "1 if the store took the last write, 0 if it did not.",
            u64::from(works),
        )
    }
}

impl Sources {
    fn connections(&self, page: &mut Page<'_>) -> Result<(), fmt::Error> {
        let Counts {
            signed_in,
            unidentified,
            ..
        } = &*self.counts;
        page.gauges(
            "connections",
            "Connections that there are.",
            "kind",
            [
                ("signed_in", signed_in.now()),
                ("unidentified", unidentified.now()),
            ],
        )?;
        page.counters(
            "connections_opened",
            "Connections that there were and are.",
            "kind",
            [
                ("signed_in", signed_in.opened()),
                ("unidentified", unidentified.opened()),
            ],
        )?;
        let refused = |what| self.refusals.total(what);
        page.counters(
            "connections_refused",
            "Connections that were turned away, by the limit that they met.",
            "limit",
            [
                ("address_sign_ins", refused(Refused::AddressSignIns)),
                ("address_connections", refused(Refused::AddressConnections)),
                ("connections", refused(Refused::Connections)),
            ],
        )?;
        page.counter(
            "sign_ins_failed",
            "Clients that did not sign in rightly, or not in time.",
            refused(Refused::SignIn),
        )?;
        page.counter(
            "held_back",
            "Times a client was not read from for a while, as it, or its address, went over a rate.",
            refused(Refused::Reading),
        )
    }

    fn envelopes(&self, page: &mut Page<'_>) -> Result<(), fmt::Error> {
        let counts = &*self.counts;
        page.counters(
            "envelopes_accepted",
            "Envelopes that were accepted.",
            "class",
            [
                ("keep", counts.accepted_to_keep.get()),
                ("newest_only", counts.accepted_newest.get()),
                ("now_or_never", counts.accepted_now.get()),
            ],
        )?;
        page.counter(
            "accepted_bytes",
            "Bytes of the packets in envelopes that were accepted.",
            counts.accepted_bytes.get(),
        )?;
        page.counters(
            "envelopes_refused",
            "Envelopes that were refused.",
            "reason",
            [
                ("mailbox_full", self.refusals.total(Refused::MailboxFull)),
                ("token", counts.no_token.get()),
                ("unavailable", counts.unavailable.get()),
            ],
        )?;
        page.counter(
            "envelopes_delivered",
            "Times an envelope was handed to its recipient's connection.",
            counts.delivered.get(),
        )
    }
}

/// What is being written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), fmt::Error> {
        self.one(name, help, ConstCounter::new(value))
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> Result<(), fmt::Error> {
        self.one(name, help, ConstGauge::new(value))
    }

    /// One counter for each value of a label.
    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: [(&str, u64); N],
    ) -> Result<(), fmt::Error> {
        let counters = values.map(|(of, value)| (of, ConstCounter::new(value)));
        self.several(name, help, label, counters)
    }

    /// One gauge for each value of a label.
    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: [(&str, u64); N],
    ) -> Result<(), fmt::Error> {
        let gauges = values.map(|(of, value)| (of, ConstGauge::new(value)));
        self.several(name, help, label, gauges)
    }

    fn one<M: EncodeMetric + TypedMetric>(
        &mut self,
        name: &str,
        help: &str,
        metric: M,
    ) -> Result<(), fmt::Error> {
        metric.encode(self.0.encode_descriptor(name, help, None, M::TYPE)?)
    }

    fn several<M: EncodeMetric + TypedMetric, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        metrics: [(&str, M); N],
    ) -> Result<(), fmt::Error> {
        let mut family = self.0.encode_descriptor(name, help, None, M::TYPE)?;
        for (of, metric) in metrics {
            metric.encode(family.encode_family(&[(label, of)])?)?;
        }
        Ok(())
    }
}
