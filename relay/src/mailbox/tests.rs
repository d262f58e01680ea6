mod steps;

use std::time::Duration;

use async_trait::async_trait;
use outlive_core::record::ClockRecord;
use outlive_core::store::ReadLimit;
use outlive_core::transport::{Class, Sender, Slot};
use outlive_core::{EnvelopeId, Identity, StoreTime, WallTime};
use outlive_storage::MemoryStore;
use outlive_testing::{Intercepted, Interceptor, comes_true, soon};
use tokio::sync::oneshot;

use super::request::Answer;
use super::sweep::SWEEP;
use super::*;
use crate::records::{Amount, Envelope};

/// When envelopes expire that were put there by hand.
const EXPIRE: StoreTime = StoreTime(3_600_000);

fn peer(n: u8) -> PeerId {
    Identity::from_seed([n; 32]).peer_id()
}

/// A relay that was down while envelopes expired, so many of a peer and as many in a slot.
async fn relay_with_expired(count: usize) -> (MemoryStore, Writer, Mailboxes) {
    relay_at(StoreClock::resume(None), count).await
}

/// A relay with envelopes that expire a moment after the clock of its store was at nothing.
async fn relay_at(clock: StoreClock, count: usize) -> (MemoryStore, Writer, Mailboxes) {
    let store = MemoryStore::new();
    let directory = Arc::new(Directory::default());
    let config = RelayConfig {
        // One tick, and not another.
        sweep_every: Duration::from_secs(3_600),
        ..RelayConfig::default()
    };
    let (health, refusals) = (Arc::default(), Arc::default());
    let opened = Writer::open(
        Arc::new(store.clone()),
        Arc::new(clock),
        config,
        directory,
        health,
        refusals,
        Arc::default(),
    )
    .await;
    let (writer, mailboxes, _) = opened.expect("an empty store");
    let envelope = Envelope {
        class: Class::Keep,
        expires: EXPIRE,
        packet: Bytes::from_static(b"late"),
    };
    let mut batch = Batch::new();
    for from in [Sender::Peer(peer(1)), Sender::Slot(Slot([1; 32]))] {
        for number in 1..=count as u64 {
            let number = EnvelopeId(number);
            let key = records::envelope(&peer(0), &from, number);
            batch.put(key, records::to_value(&envelope));
            let expiry = records::expiry(envelope.expires, &peer(0), &from, number);
            batch.put(expiry, Bytes::new());
        }
    }
    let envelopes = 2 * count as u64;
    let kept = Amount {
        envelopes,
        bytes: envelopes * envelope.packet.len() as u64,
    };
    let newest = Amount::default();
    let usage = records::to_value(&Usage { kept, newest });
    batch.put(records::usage(&peer(0)), usage);
    store.commit(batch).await.expect("written");
    (store, writer, mailboxes)
}

/// Envelopes whose time is over, and which are there still.
async fn unswept(store: &MemoryStore) -> usize {
    let limit = ReadLimit {
        records: usize::MAX,
        bytes: usize::MAX,
    };
    let mut count = 0;
    for range in records::expired(EXPIRE) {
        count += store.range(range, limit).await.expect("rows").len();
    }
    count
}

async fn all_swept(store: &MemoryStore) {
    comes_true("all to be swept", async || unswept(store).await == 0).await;
}

/// What is kept where the relay's clock stood.
async fn stood(store: &MemoryStore) -> ClockRecord {
    let value = store.get(records::CLOCK.into()).await.expect("it works");
    records::from_value(&value.expect("the clock")).expect("our own")
}

/// A relay that began in 1970. Elsewhere the wall clock counts from one process to the next.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_wall_clock_that_is_put_right_expires_no_mail() {
    let (store, ..) = relay_with_expired(1).await;
    let mut then = stood(&store).await;
    then.store = StoreTime(5);
    then.machine.wall = WallTime(5);
    let mut batch = Batch::new();
    batch.put(records::CLOCK.into(), records::to_value(&then));
    store.commit(batch).await.expect("written");
    let clock = clock(&store).await.expect("our own");
    let (store, mut writer, _mailboxes) = relay_at(clock, 1).await;
    assert!(!writer.sweep().await, "nothing has expired");
    assert_eq!(unswept(&store).await, 2);
}

#[tokio::test]
async fn where_the_clock_stands_is_written_again_when_the_wall_clock_was_set() {
    let (store, mut writer, _mailboxes) = relay_with_expired(0).await;
    let stands = stood(&store).await;
    let mut before = stands;
    before.machine.wall = WallTime(5);
    writer.clock.written(&before);
    store.faults().fail_commits(1, &StoreError::Full);
    for written in [false, true, true] {
        writer.sweep().await;
        assert_eq!(stood(&store).await != stands, written);
        assert_eq!(writer.clock.unwritten().is_none(), written);
    }
}

/// A disk with one record that can't be read.
struct Unreadable {
    key: Bytes,
}

impl Unreadable {
    fn on(store: MemoryStore, key: Bytes) -> Arc<dyn Store> {
        Arc::new(Intercepted::new(store, Self { key }))
    }
}

#[async_trait]
impl Interceptor for Unreadable {
    async fn get(&self, store: &MemoryStore, key: Bytes) -> Result<Option<Bytes>, StoreError> {
        if key == self.key {
            let what = "a record".to_owned();
            return Err(StoreError::Damaged { what });
        }
        store.get(key).await
    }
}

fn put(to: PeerId) -> (Request, oneshot::Receiver<Vec<Answer>>) {
    let put = Put {
        to,
        class: Class::Keep,
        ttl: 60,
        packet: Bytes::from_static(b"in time"),
    };
    Request::put(peer(2).into(), vec![put])
}

impl Writer {
    /// Does these, in as many steps as they take.
    async fn finish(&mut self, requests: impl IntoIterator<Item = Request>) {
        self.waiting.extend(requests);
        self.step().await;
        while !self.waiting.is_empty() {
            self.step().await;
        }
    }
}

#[tokio::test]
async fn more_that_has_expired_than_one_sweep_takes_is_gone_at_the_same_tick() {
    let (store, writer, _mailboxes) = relay_with_expired(4 * SWEEP + 1).await;
    let running = tokio::spawn(writer.run());
    all_swept(&store).await;
    let usage = store.get(records::usage(&peer(0))).await.expect("read");
    assert_eq!(usage, None, "it counts against the quota still");
    running.abort();
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_kept() {
    let (store, mut writer, _mailboxes) = relay_with_expired(0).await;
    let (given_up, answers) = put(peer(3));
    drop(answers);
    let (again, answers) = put(peer(3));
    writer.finish([given_up, again]).await;
    assert_eq!(answers.await.expect("answers"), [Ok(())]);
    let usage = store.get(records::usage(&peer(3))).await.expect("read");
    let usage = usage.and_then(|usage| records::from_value::<Usage>(&usage));
    assert_eq!(usage.expect("an envelope").kept.envelopes, 1);
}

#[tokio::test]
async fn requests_have_their_turns_while_much_has_expired() {
    let (store, writer, mailboxes) = relay_with_expired(16 * SWEEP).await;
    let running = tokio::spawn(writer.run());
    while unswept(&store).await == 32 * SWEEP {
        tokio::task::yield_now().await;
    }
    for turn in 1..=4 {
        let (request, answers) = put(peer(3));
        mailboxes.send(request).await.expect("a writer");
        let answers = soon("an answer", answers).await;
        assert_eq!(answers.expect("answers"), [Ok(())]);
        let left = unswept(&store).await;
        assert!(left > 0, "turn {turn} came behind all of it");
        // Nor does it wait until nobody asks for anything.
        assert!(left <= (32 - 2 * turn) * SWEEP, "turn {turn} held it up");
    }
    all_swept(&store).await;
    running.abort();
}

#[tokio::test]
async fn a_mailbox_full_of_what_has_expired_takes_what_is_new() {
    let (store, mut writer, _mailboxes) = relay_with_expired(10).await;
    writer.config.mailbox_envelopes = 20;
    let mut requests = Vec::new();
    let mut answers = Vec::new();
    for _ in 0..21 {
        let (request, answer) = put(peer(0));
        requests.push(request);
        answers.push(answer);
    }
    writer.finish(requests).await;
    for (number, answer) in (1..).zip(answers) {
        let room = if number <= 20 {
            Ok(())
        } else {
            Err(Refusal::MailboxFull)
        };
        assert_eq!(answer.await.expect("answers"), [room], "number {number}");
    }
    assert_eq!(unswept(&store).await, 0);
}

#[tokio::test]
async fn a_full_mailbox_has_no_more_swept_for_it_than_a_sweep_takes() {
    let (store, mut writer, _mailboxes) = relay_with_expired(4 * SWEEP).await;
    writer.config.mailbox_envelopes = SWEEP as u64;
    let (first, first_answers) = put(peer(0));
    let (second, second_answers) = put(peer(0));
    writer.finish([first, second]).await;
    for answers in [first_answers, second_answers] {
        assert_eq!(answers.await.expect("answers"), [Err(Refusal::MailboxFull)]);
    }
    assert_eq!(unswept(&store).await, 6 * SWEEP);
}

#[tokio::test]
async fn a_sweep_that_the_store_fails_is_not_followed_by_the_next_at_once() {
    let (store, mut writer, _mailboxes) = relay_with_expired(SWEEP).await;
    store.faults().fail_commits(1, &StoreError::Full);
    assert!(!writer.sweep().await, "it keeps a core busy");
    store.faults().fail_reads(1, &StoreError::Full);
    assert!(!writer.sweep().await, "it keeps a core busy");
    assert_eq!(unswept(&store).await, 2 * SWEEP);
    assert!(writer.sweep().await, "there may be more");
    assert!(!writer.sweep().await, "there is no more");
    assert_eq!(unswept(&store).await, 0);
}

#[tokio::test]
async fn what_can_not_be_read_is_passed_over_when_what_has_expired_goes() {
    let (store, mut writer, _mailboxes) = relay_with_expired(10).await;
    let key = records::envelope(&peer(0), &peer(1).into(), EnvelopeId(3));
    let unreadable = store.clone();
    writer.store = Unreadable::on(unreadable, key);
    assert!(!writer.sweep().await, "there is no more");
    assert_eq!(unswept(&store).await, 1);
}

#[tokio::test]
async fn a_sweep_of_nothing_but_what_can_not_be_read_has_an_end() {
    let (store, mut writer, _mailboxes) = relay_with_expired(SWEEP).await;
    writer.usages.clear();
    let key = records::usage(&peer(0));
    writer.store = Unreadable::on(store, key);
    assert!(writer.sweep().await, "there may be more");
    assert!(!writer.sweep().await, "it keeps a core busy");
}

#[tokio::test]
async fn a_sweep_goes_past_what_can_not_be_read() {
    let (store, mut writer, _mailboxes) = relay_with_expired(2 * SWEEP).await;
    // All that comes first is in one mailbox, and that can't be read.
    let mut batch = Batch::new();
    for number in 1..=2 * SWEEP as u64 {
        let number = EnvelopeId(number);
        let from = peer(1).into();
        let key = records::envelope(&peer(3), &from, number);
        let value = store.get(records::envelope(&peer(0), &from, number)).await;
        batch.put(key, value.expect("read").expect("an envelope"));
        let expiry = records::expiry(StoreTime(0), &peer(3), &from, number);
        batch.put(expiry, Bytes::new());
    }
    store.commit(batch).await.expect("written");
    let key = records::usage(&peer(3));
    let unreadable = store.clone();
    writer.store = Unreadable::on(unreadable, key);
    for sweep in 0.. {
        assert!(sweep < 10, "it has no end");
        if !writer.sweep().await {
            break;
        }
    }
    assert_eq!(
        unswept(&store).await,
        2 * SWEEP,
        "what can be read stays too"
    );
    // Once it can be read, all of it goes.
    writer.store = Arc::new(store.clone());
    while writer.sweep().await {}
    assert_eq!(unswept(&store).await, 0);
}

#[tokio::test]
async fn a_mailbox_that_can_not_be_read_refuses_alone() {
    let (store, mut writer, _mailboxes) = relay_with_expired(0).await;
    let key = records::usage(&peer(3));
    writer.store = Unreadable::on(store, key);
    let (to_it, its_answers) = put(peer(3));
    let (to_another, other_answers) = put(peer(4));
    writer.finish([to_it, to_another]).await;
    let its_answers = its_answers.await.expect("answers");
    assert_eq!(its_answers, [Err(Refusal::Unavailable)]);
    assert_eq!(other_answers.await.expect("answers"), [Ok(())]);
}

#[tokio::test]
async fn what_is_damaged_for_good_is_not_tried_again() {
    let (store, mut writer, _mailboxes) = relay_with_expired(1).await;
    let acknowledge = || {
        let sender = Sender::Peer(peer(1));
        let numbers = vec![EnvelopeId(1)];
        let what = What::Acknowledge { sender, numbers };
        let recipient = peer(0);
        Request::Change(Change { recipient, what })
    };
    writer.usages.clear();
    store.faults().fail_reads(1, &StoreError::Full);
    writer.finish([acknowledge()]).await;
    assert_eq!(writer.again.len(), 1, "it may pass");
    let key = records::usage(&peer(0));
    writer.store = Unreadable::on(store.clone(), key);
    writer.finish([]).await;
    assert!(writer.again.is_empty());
    // It may be a failure that looks so.
    writer.finish([acknowledge()]).await;
    assert_eq!(writer.again.len(), 1);
    writer.finish([]).await;
    assert!(writer.again.is_empty());
    assert_eq!(unswept(&store).await, 2, "nor is anything lost");
}

#[tokio::test]
async fn more_changes_than_can_be_put_off_let_their_recipients_go() {
    let (store, mut writer, _mailboxes) = relay_with_expired(0).await;
    let presence = writer.directory.enter(peer(1));
    let tokens = || {
        let what = What::Tokens(Vec::new());
        let recipient = peer(1);
        Request::Change(Change { recipient, what })
    };
    for _ in 0..AGAIN {
        store.faults().fail_commits(1, &StoreError::Full);
        writer.finish([tokens()]).await;
    }
    assert_eq!(writer.again.len(), AGAIN);
    assert!(!presence.let_go.is_cancelled());
    store.faults().fail_commits(1, &StoreError::Full);
    writer.finish([tokens()]).await;
    assert_eq!(writer.again.len(), AGAIN);
    assert!(presence.let_go.is_cancelled());
    writer.finish([]).await;
    assert!(writer.again.is_empty());
}
