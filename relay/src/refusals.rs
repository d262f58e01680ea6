//! What the relay turns away, counted and told to its operator: how much of each kind, and nobody's name or
//! address.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Time between two lines of one kind, whatever comes meanwhile.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What is turned away, or held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A connection: its address opens them too fast.
    AddressSignIns,
    /// A connection: its address has too many of them.
    AddressConnections,
    /// A connection: the relay has too many of them.
    Connections,
    /// Whoever did not sign in as it has to be done, or not in time.
    SignIn,
    /// An envelope: its mailbox is full.
    MailboxFull,
    /// A question: its address asks too often.
    Stun,
    /// To be read from at once: whoever sent it, or its address, went over a rate.
    Reading,
}

impl Refused {
    const ALL: [Self; 7] = [
        Self::AddressSignIns,
        Self::AddressConnections,
        Self::Connections,
        Self::SignIn,
        Self::MailboxFull,
        Self::Stun,
        Self::Reading,
    ];

    /// What the log says of it.
    pub(crate) const fn told(self) -> &'static str {
        match self {
            Self::AddressSignIns => "connections closed: their addresses open them too fast",
            Self::AddressConnections => "connections closed: their addresses have too many",
            Self::Connections => "connections refused: the relay has too many",
            Self::SignIn => "sign-ins failed",
            Self::MailboxFull => "envelopes refused: their mailboxes are full",
            Self::Stun => "STUN requests not answered: their addresses ask too often",
            Self::Reading => "times a client was held back: it, or its address, went over a rate",
        }
    }
}

/// Counts what is refused, and tells it now and then.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog {
    counts: [AtomicU64; Refused::ALL.len()],
}

impl RefusalLog {
    /// One more was refused.
    pub(crate) fn count(&self, what: Refused) {
        if let Some(count) = self.counts.get(what as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were refused since the relay started.
    pub(crate) fn total(&self, what: Refused) -> u64 {
        let count = self.counts.get(what as usize);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Tells how many of each kind were refused since that was told last, if any were. Ends when the relay
    /// drains, with the last of them.
    pub(crate) async fn run(&self, draining: CancellationToken, tell: impl Fn(Refused, u64)) {
        let mut drains = false;
        let mut told = [0; Refused::ALL.len()];
        while !drains {
            let waiting = tokio::time::sleep(TELL_EVERY);
            drains = draining.run_until_cancelled(waiting).await.is_none();
            for (what, told) in Refused::ALL.into_iter().zip(&mut told) {
                let total = self.total(what);
                match total.saturating_sub(*told) {
                    0 => {}
                    count => tell(what, count),
                }
                *told = total;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn however_many_are_refused_each_kind_has_a_line_in_ten_seconds() {
        let (log, told) = (Arc::new(RefusalLog::default()), Arc::default());
        let (draining, start) = (CancellationToken::new(), Instant::now());
        let telling = tokio::spawn({
            let (log, draining) = (log.clone(), draining.clone());
            let told: Arc<Mutex<Vec<_>>> = Arc::clone(&told);
            async move {
                let tell = |what, count| {
                    let line = (start.elapsed().as_secs(), what, count);
                    told.lock().unwrap().push(line);
                };
                log.run(draining, tell).await;
            }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        for second in 0..35 {
            for _ in 0..100 {
                log.count(Refused::Stun);
            }
            if second == 25 {
                log.count(Refused::MailboxFull);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        draining.cancel();
        telling.await.unwrap();
        let expected = [
            (10, Refused::Stun, 1_000),
            (20, Refused::Stun, 1_000),
            (30, Refused::MailboxFull, 1),
            (30, Refused::Stun, 1_000),
            // The last, as the relay ends.
            (35, Refused::Stun, 500),
        ];
        assert_eq!(*told.lock().unwrap(), expected);
    }

    #[test]
    fn each_kind_has_a_count_of_its_own() {
        let log = RefusalLog::default();
        for (most, what) in (1..).zip(Refused::ALL) {
            (0..most).for_each(|_| log.count(what));
        }
        for (most, what) in (1..).zip(Refused::ALL) {
            assert_eq!(log.total(what), most, "{what:?}");
        }
    }
}
