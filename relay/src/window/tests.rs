use async_trait::async_trait;
use futures_util::FutureExt;
use outlive_core::store::Batch;
use outlive_core::transport::Class;
use outlive_core::{Identity, StoreTime};
use outlive_storage::MemoryStore;
use outlive_testing::{Intercepted, Interceptor};

use super::*;

fn window_of(store: Arc<dyn Store>) -> Window {
    Window::new(store, Arc::new(StoreClock::resume(None)), peer(0))
}

/// A store that answers only when it is asked a second time.
struct Slow;

#[async_trait]
impl Interceptor for Slow {
    async fn range(
        &self,
        store: &MemoryStore,
        range: std::ops::Range<Bytes>,
        limit: ReadLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        tokio::task::yield_now().await;
        store.range(range, limit).await
    }
}

fn peer(n: u8) -> PeerId {
    Identity::from_seed([n; 32]).peer_id()
}

fn slot(n: u16) -> Sender {
    let mut slot = [7; 32];
    slot[..2].copy_from_slice(&n.to_be_bytes());
    Sender::Slot(outlive_core::transport::Slot(slot))
}

async fn put(
    store: &MemoryStore,
    sender: impl Into<Sender>,
    numbers: impl IntoIterator<Item = u64>,
) {
    let sender = sender.into();
    let mut batch = Batch::new();
    for number in numbers {
        let envelope = Envelope {
            class: Class::Keep,
            expires: StoreTime(u64::MAX),
            packet: Bytes::from_static(b"packet"),
        };
        batch.put(
            records::envelope(&peer(0), &sender, EnvelopeId(number)),
            records::to_value(&envelope),
        );
    }
    store.commit(batch).await.expect("written");
}

/// Everything that is delivered without another word of the recipient.
async fn delivered(window: &mut Window) -> Vec<(Sender, u64)> {
    let mut all = Vec::new();
    while window.has_more() {
        for message in window.next().await.expect("read") {
            if let FromRelay::Deliver { from, envelope, .. } = message {
                all.push((from, envelope.expect("a number").0));
            }
        }
    }
    all
}

fn numbers(from: u64, until: u64) -> Vec<EnvelopeId> {
    (from..until).map(EnvelopeId).collect()
}

#[tokio::test]
async fn mail_of_two_senders_is_delivered_side_by_side() {
    let store = MemoryStore::new();
    put(&store, peer(1), 1..=40).await;
    put(&store, peer(2), 41..=80).await;
    let mut window = window_of(Arc::new(store));
    assert_eq!(delivered(&mut window).await.len(), 80);
}

#[tokio::test]
async fn a_step_that_is_cut_off_loses_no_mail() {
    let store = MemoryStore::new();
    put(&store, peer(1), 1..=80).await;
    let mut window = window_of(Arc::new(Intercepted::new(store, Slow)));
    let mut all = Vec::new();
    while window.has_more() {
        assert!(window.next().now_or_never().is_none(), "the store is slow");
        all.extend(window.next().await.expect("read"));
    }
    assert_eq!(all.len(), 80);
}

#[tokio::test]
async fn a_sender_whose_mail_is_not_taken_stops_only_itself() {
    let store = MemoryStore::new();
    put(&store, peer(1), 1..=500).await;
    put(&store, peer(2), 501..=510).await;
    let mut window = window_of(Arc::new(store));
    let all = delivered(&mut window).await;
    assert_eq!(all.len(), SENDER_ENVELOPES + 10);
}

#[tokio::test]
async fn what_is_parked_lets_others_pass_and_comes_again_when_asked_for() {
    let store = MemoryStore::new();
    put(&store, peer(1), 1..=500).await;
    let mut window = window_of(Arc::new(store.clone()));
    let mut seen = 0;
    while seen < 500 {
        let passed = delivered(&mut window).await;
        assert!(!passed.is_empty(), "held up behind {seen}");
        let first = seen + 1;
        seen += passed.len() as u64;
        window.parked(peer(1).into(), &numbers(first, seen + 1));
    }
    assert_eq!(window.on_the_way, 0);
    assert_eq!(delivered(&mut window).await, []);
    // What is new comes alone.
    put(&store, peer(1), 501..=501).await;
    window.wake([peer(1).into()]);
    assert_eq!(delivered(&mut window).await, [(peer(1).into(), 501)]);

    window.redeliver(peer(1).into());
    let again = delivered(&mut window).await;
    assert_eq!(again.first(), Some(&(peer(1).into(), 1)));
    assert_eq!(again.len(), SENDER_ENVELOPES);
}

#[tokio::test]
async fn parking_what_was_never_delivered_changes_nothing() {
    let store = MemoryStore::new();
    put(&store, peer(1), 1..=2).await;
    let mut window = window_of(Arc::new(store));
    window.parked(peer(1).into(), &numbers(1, 3));
    window.parked(peer(2).into(), &numbers(1, 3));
    assert_eq!(delivered(&mut window).await.len(), 2);
    window.parked(peer(1).into(), &numbers(7, 9));
    assert_eq!(window.on_the_way, 2);
    assert!(window.senders.values().all(|of| !of.parked));
}

#[tokio::test]
async fn senders_without_number_of_whom_something_is_parked_hold_up_nobody() {
    const SENDERS: u16 = 10_000;
    let store = MemoryStore::new();
    for n in 0..SENDERS {
        put(&store, slot(n), [u64::from(n) + 1]).await;
    }
    let mut window = window_of(Arc::new(store.clone()));
    let mut seen = 0;
    while seen < usize::from(SENDERS) {
        let passed = delivered(&mut window).await;
        assert!(!passed.is_empty(), "held up behind {seen}");
        seen += passed.len();
        for (sender, number) in passed {
            window.parked(sender, &numbers(number, number + 1));
        }
        let senders = window.senders.len();
        assert!(senders <= IDLE_SENDERS, "{senders} are remembered");
    }
    assert_eq!(delivered(&mut window).await, []);
    put(&store, peer(1), [20_000]).await;
    window.wake([peer(1).into()]);
    assert_eq!(delivered(&mut window).await, [(peer(1).into(), 20_000)]);
    // Forgotten or not: it comes when it is asked for.
    for n in [SENDERS - 1, 0] {
        window.redeliver(slot(n));
        let again = delivered(&mut window).await;
        assert!(again.contains(&(slot(n), u64::from(n) + 1)), "{n}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_does_not_come_again_before_it_is_deleted() {
    let store = MemoryStore::new();
    put(&store, peer(1), 1..=3).await;
    let mut window = window_of(Arc::new(store.clone()));
    assert_eq!(delivered(&mut window).await.len(), 3);
    window.acknowledged(peer(1).into(), &numbers(1, 4));
    assert_eq!(delivered(&mut window).await, []);
    // The next comes while the deletion of these waits for its turn.
    put(&store, peer(1), 4..=4).await;
    window.wake([peer(1).into()]);
    assert_eq!(delivered(&mut window).await, [(peer(1).into(), 4)]);
    // Unless the recipient asks for all of it.
    window.redeliver(peer(1).into());
    assert_eq!(delivered(&mut window).await.len(), 4);
}

#[tokio::test]
async fn however_many_senders_have_mail_few_of_them_wait_for_a_turn_at_once() {
    const SENDERS: u16 = 1_000;
    let store = MemoryStore::new();
    for n in 0..SENDERS {
        put(&store, slot(n), [u64::from(n) + 1]).await;
    }
    let mut window = window_of(Arc::new(store));
    let (mut seen, mut most, mut steps) = (0, 0, 0);
    while window.has_more() {
        seen += window.next().await.expect("read").len();
        most = window.ready.len().max(most);
        steps += 1;
    }
    assert_eq!(seen, usize::from(SENDERS));
    assert!(most < 10, "{most} waited for a turn");
    assert!(steps < 2 * seen, "{steps} steps");
    for n in 0..SENDERS {
        window.wake([slot(n), slot(n)]);
    }
    assert_eq!(window.ready.len(), seen, "each waits once");
}

#[tokio::test]
async fn asking_again_for_senders_who_sent_nothing_leaves_nothing_behind() {
    let store = MemoryStore::new();
    put(&store, peer(1), 1..=1).await;
    let mut window = window_of(Arc::new(store.clone()));
    assert_eq!(delivered(&mut window).await.len(), 1);
    // As long as nothing is taken, nobody has a turn.
    window.on_the_way = ALL_ENVELOPES;
    for n in 0..10_000 {
        window.redeliver(slot(n));
    }
    assert_eq!((window.ready.len(), window.senders.len()), (0, 1));
}

#[tokio::test]
async fn asking_again_before_the_mail_was_found_or_after_it_was_forgotten_loses_none() {
    let store = MemoryStore::new();
    put(&store, peer(1), 1..=2).await;
    let mut window = window_of(Arc::new(store.clone()));
    // The search has not come to this sender.
    window.redeliver(peer(1).into());
    assert_eq!(delivered(&mut window).await.len(), 2);
    // This one waits for its first turn.
    put(&store, peer(2), 3..=3).await;
    window.wake([peer(2).into()]);
    window.redeliver(peer(2).into());
    assert_eq!(delivered(&mut window).await, [(peer(2).into(), 3)]);
    // Of this one all was taken, and it is not remembered any more.
    window.acknowledged(peer(2).into(), &numbers(3, 4));
    assert_eq!(delivered(&mut window).await, []);
    window.senders.remove(&peer(2).into());
    window.redeliver(peer(2).into());
    put(&store, peer(2), 4..=4).await;
    window.wake([peer(2).into()]);
    let again = delivered(&mut window).await;
    assert_eq!(again.last(), Some(&(peer(2).into(), 4)));
}

#[tokio::test]
async fn more_senders_than_may_wait_for_a_turn_are_found_when_the_others_had_theirs() {
    let store = MemoryStore::new();
    let mut window = window_of(Arc::new(store.clone()));
    assert_eq!(delivered(&mut window).await, []);
    // While nothing is taken, mail comes and expires, of ever new senders.
    window.on_the_way = ALL_ENVELOPES;
    for n in 0..10_000 {
        window.wake([slot(n)]);
    }
    assert!(window.ready.len() <= TURNS, "{}", window.ready.len());
    let last = [3, 9_998, 9_999];
    for n in last {
        put(&store, slot(n), [u64::from(n)]).await;
        window.wake([slot(n)]);
    }
    window.on_the_way = 0;
    let mut all = delivered(&mut window).await;
    all.sort_unstable();
    assert_eq!(all, last.map(|n| (slot(n), u64::from(n))));
    // The search has an end.
    assert!(!window.has_more());
    put(&store, slot(5), [10_000]).await;
    window.wake([slot(5)]);
    assert_eq!(delivered(&mut window).await, [(slot(5), 10_000)]);
}

#[tokio::test]
async fn senders_that_found_no_turn_are_forgotten_as_others_are() {
    const SENDERS: u16 = 20_000;
    let store = MemoryStore::new();
    let mut window = window_of(Arc::new(store.clone()));
    assert_eq!(delivered(&mut window).await, []);
    // So many others wait for a turn that nobody else gets one.
    let mut others = Turns::default();
    for n in 0..TURNS {
        others.add(slot(SENDERS + u16::try_from(n).expect("few")));
    }
    for n in 0..SENDERS {
        let number = u64::from(n) + 1;
        put(&store, slot(n), [number]).await;
        window.wake([slot(n)]);
        assert_eq!(delivered(&mut window).await, [(slot(n), number)]);
        std::mem::swap(&mut window.ready, &mut others);
        if n % 2 == 0 {
            window.acknowledged(slot(n), &numbers(number, number + 1));
        } else {
            window.redeliver(slot(n));
        }
        std::mem::swap(&mut window.ready, &mut others);
        window.search_again = false;
    }
    assert_eq!(window.on_the_way, 0);
    let senders = window.senders.len();
    assert!(senders <= IDLE_SENDERS, "{senders} are remembered");
}

#[tokio::test]
async fn a_search_through_what_has_expired_lets_others_have_their_turns() {
    let store = MemoryStore::new();
    let mut batch = Batch::new();
    let envelope = Envelope {
        class: Class::Keep,
        expires: StoreTime(1),
        packet: Bytes::from_static(b"late"),
    };
    for number in 1..=50_000 {
        batch.put(
            records::envelope(&peer(0), &peer(1).into(), EnvelopeId(number)),
            records::to_value(&envelope),
        );
    }
    store.commit(batch).await.expect("written");
    let turns = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = turns.clone();
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let mut window = window_of(Arc::new(store));
    assert_eq!(delivered(&mut window).await, []);
    let turns = turns.load(std::sync::atomic::Ordering::Relaxed);
    assert!(turns >= 10, "{turns} turns of others");
    other.abort();
}
