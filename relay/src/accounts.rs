//! What peers and addresses have used of their rates, kept beyond their connections: whoever comes
//! back finds the bucket as it was left.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use crate::config::RelayConfig;
use crate::lock::lock;
use crate::rate::{Bucket, Rate};

/// What one WebSocket message of a peer costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) envelopes: u64,
    pub(crate) bytes: u64,
    pub(crate) watches: u64,
}

/// How fast whoever has an account may go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) envelopes: Option<Rate>,
    pub(crate) bytes: Option<Rate>,
    pub(crate) watches: Option<Rate>,
}

/// The buckets of one peer, or of all that comes from one address. All connections draw from the same.
#[derive(Debug, Default)]
pub(crate) struct RateAccount {
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    envelopes: Bucket,
    bytes: Bucket,
    watches: Bucket,
}

impl RateAccount {
    /// Takes the cost of a message, and returns until when no further one is to be read, if it is
    /// not now.
    pub(crate) fn charge(&self, rates: Rates, cost: Cost, now: Instant) -> Option<Instant> {
        let mut buckets = lock(&self.buckets);
        let paid = [
            buckets.envelopes.take(rates.envelopes, cost.envelopes, now),
            buckets.bytes.take(rates.bytes, cost.bytes, now),
            buckets.watches.take(rates.watches, cost.watches, now),
        ];
        paid.into_iter().max().filter(|paid| *paid > now)
    }
}

/// For whom it is counted what a peer sends: for itself, and for where it comes from, because anybody
/// can be one peer after the other.
pub(crate) struct Payers {
    pub(crate) peer: Arc<RateAccount>,
    pub(crate) address: Option<Arc<RateAccount>>,
}

impl Payers {
    /// As [`RateAccount::charge`].
    pub(crate) fn charge(&self, config: &RelayConfig, cost: Cost, now: Instant) -> Option<Instant> {
        let paid = self.peer.charge(config.peer_rates(), cost, now);
        let of_address =
            |address: &Arc<RateAccount>| address.charge(config.address_rates(), cost, now);
        paid.max(self.address.as_ref().and_then(of_address))
    }
}

/// What came from one address, sign-ins or questions, and the sockets that are open from there.
#[derive(Debug, Default)]
pub(crate) struct SocketAccount {
    attempts: Mutex<Bucket>,
    open: AtomicUsize,
}

/// A socket that is open from an address, for as long as it is. The account of that address is not
/// forgotten meanwhile.
#[derive(Debug)]
pub(crate) struct OpenSocket(Arc<SocketAccount>);

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SocketAccount {
    /// Counts one more socket, if fewer than `most` are open; 0 for no limit.
    pub(crate) fn opens(self: &Arc<Self>, most: usize) -> Option<OpenSocket> {
        let more = |open| (most == 0 || open < most).then_some(open + 1);
        let counted = self
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.is_ok().then(|| OpenSocket(self.clone()))
    }

    /// Counts an attempt, and returns whether it is within the limit.
    pub(crate) fn admits(&self, rate: Option<Rate>, now: Instant) -> bool {
        let mut bucket = lock(&self.attempts);
        let before = *bucket;
        let admitted = bucket.take(rate, 1, now) <= now;
        if !admitted {
            // Who is turned away has not used anything: it gets in as soon as its time has come.
            *bucket = before;
        }
        admitted
    }
}

/// Whom an address stands for: IPv6 is given out by networks of 64 bits.
pub(crate) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// What can be forgotten.
pub(crate) trait Account: Default {
    /// Whether a new one is as good.
    fn is_settled(&self, now: Instant) -> bool;
}

impl Account for RateAccount {
    fn is_settled(&self, now: Instant) -> bool {
        let buckets = lock(&self.buckets);
        let all = [buckets.envelopes, buckets.bytes, buckets.watches];
        all.iter().all(|bucket| bucket.is_full(now))
    }
}

impl Account for SocketAccount {
    fn is_settled(&self, now: Instant) -> bool {
        lock(&self.attempts).is_full(now)
    }
}

/// Accounts by whom they belong to. As many as `most`; when they are there, those that nobody uses
/// and that are settled go, and if that is not enough, any that nobody uses: a crowd so large is
/// not held back by limits for each of its members anyway.
#[derive(Debug)]
pub(crate) struct Accounts<K, A> {
    most: usize,
    open: Mutex<HashMap<K, Arc<A>>>,
}

impl<K: Eq + Hash, A: Account> Accounts<K, A> {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            open: Mutex::default(),
        }
    }

    /// The account of `key`, as it was left.
    pub(crate) fn of(&self, key: K, now: Instant) -> Arc<A> {
        let mut open = lock(&self.open);
        if let Some(account) = open.get(&key) {
            return account.clone();
        }
        if open.len() >= self.most {
            open.retain(|_, account| is_used(account) || !account.is_settled(now));
            // A quarter at once, so that a crowd does not make each newcomer look at all of them.
            let mut surplus = open.len().saturating_sub(self.most / 4 * 3);
            open.retain(|_, account| {
                let stays = surplus == 0 || is_used(account);
                surplus -= usize::from(!stays);
                stays
            });
        }
        let account = Arc::new(A::default());
        if open.len() < self.most {
            open.insert(key, account.clone());
        }
        account
    }
}

fn is_used<A>(account: &Arc<A>) -> bool {
    Arc::strong_count(account) > 1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rates() -> Rates {
        Rates {
            envelopes: Rate::new(10).map(|rate| rate.with_burst(10)),
            bytes: None,
            watches: Rate::new(1).map(|rate| rate.with_burst(10)),
        }
    }

    const fn envelopes(envelopes: u64) -> Cost {
        Cost {
            envelopes,
            bytes: 1 << 40,
            watches: 0,
        }
    }

    #[test]
    fn a_peer_that_comes_back_finds_its_bucket_as_it_left_it() {
        let (accounts, now) = (Accounts::<u8, RateAccount>::new(8), Instant::now());
        let debt = accounts.of(1, now).charge(rates(), envelopes(20), now);
        assert_eq!(debt, Some(now + Duration::from_secs(1)));
        let again = accounts.of(1, now).charge(rates(), envelopes(10), now);
        assert_eq!(again, Some(now + Duration::from_secs(2)));
        let other = accounts.of(2, now).charge(rates(), envelopes(10), now);
        assert_eq!(other, None);
    }

    #[test]
    fn the_limit_that_is_reached_last_counts() {
        let now = Instant::now();
        let cost = Cost {
            envelopes: 20,
            bytes: 0,
            watches: 15,
        };
        let paid = RateAccount::default().charge(rates(), cost, now);
        assert_eq!(paid, Some(now + Duration::from_secs(5)));
    }

    #[test]
    fn a_peer_of_a_busy_address_has_its_turn_between_the_others() {
        const BUSY: usize = 40;
        let (address, start) = (RateAccount::default(), Instant::now());
        address.charge(rates(), envelopes(10), start);
        // The first sends one envelope a second, the others ten as often as they are read from.
        let mut next = [start; BUSY + 1];
        // What the debt of one message from each of them takes at ten a second.
        let turn = Duration::from_secs(BUSY as u64 + 1);
        let (mut wanted, mut read) = (start, 0);
        while next[0] < start + 100 * turn {
            let (who, at) = (0..).zip(next).min_by_key(|(_, at)| *at).expect("some");
            if who == 0 {
                assert!(at - wanted <= turn, "it waited for {:?}", at - wanted);
                read += 1;
            }
            let cost = envelopes(if who == 0 { 1 } else { 10 });
            next[who] = address.charge(rates(), cost, at).unwrap_or(at);
            if who == 0 {
                wanted = at + Duration::from_secs(1);
                next[0] = next[0].max(wanted);
            }
        }
        assert!(read >= 100, "it was read from {read} times");
    }

    #[test]
    fn accounts_are_no_more_than_their_bound_whoever_comes() {
        let (accounts, now) = (Accounts::<u32, RateAccount>::new(100), Instant::now());
        let used = accounts.of(0, now);
        used.charge(rates(), envelopes(20), now);
        for n in 1..1_000 {
            accounts.of(n, now).charge(rates(), envelopes(20), now);
            assert!(lock(&accounts.open).len() <= 100);
        }
        // The one in use stayed.
        assert!(Arc::ptr_eq(&used, &accounts.of(0, now)));
    }

    #[test]
    fn accounts_that_are_settled_make_room_before_any_other() {
        let (accounts, start) = (Accounts::<u32, RateAccount>::new(100), Instant::now());
        let later = start + Duration::from_secs(60);
        for n in 0..50 {
            accounts.of(n, start).charge(rates(), envelopes(20), start);
        }
        for n in 50..120 {
            accounts.of(n, later).charge(rates(), envelopes(20), later);
        }
        let open = lock(&accounts.open);
        assert!((50..120).all(|n| open.contains_key(&n)));
    }

    #[test]
    fn a_bound_of_nothing_is_kept_too() {
        let (accounts, now) = (Accounts::<u32, RateAccount>::new(0), Instant::now());
        accounts.of(1, now);
        assert!(lock(&accounts.open).is_empty());
    }

    #[test]
    fn an_address_that_was_turned_away_gets_in_when_its_time_has_come() {
        let (account, start) = (SocketAccount::default(), Instant::now());
        let rate = Rate::new(1).map(|rate| rate.with_burst(3));
        for _ in 0..3 {
            assert!(account.admits(rate, start));
        }
        for _ in 0..100 {
            assert!(!account.admits(rate, start));
        }
        let later = start + Duration::from_secs(1);
        assert!(account.admits(rate, later));
        assert!(!account.admits(rate, later));
    }

    #[test]
    fn the_addresses_of_one_network_are_one_source() {
        let of = |text: &str| source(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:1:2::5"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::5"), of("2001:db8:1:3::5"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
