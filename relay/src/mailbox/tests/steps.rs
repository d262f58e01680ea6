//! How much one step of the writer takes.

use std::sync::Mutex;

use tokio::sync::oneshot;

use super::super::request::Answer;
use super::super::step::STEP_BYTES;
use super::*;

/// A store that notes how long each batch is, and fails for one of them.
struct Noting {
    batches: Mutex<Vec<usize>>,
    fails: Option<usize>,
}

impl Noting {
    fn on(store: &MemoryStore, fails: Option<usize>) -> Intercepted<Self> {
        let batches = Mutex::default();
        Intercepted::new(store.clone(), Self { batches, fails })
    }

    /// Operations in the longest batch.
    fn longest(&self) -> usize {
        let batches = self.batches.lock().expect("nobody panicked");
        batches.iter().copied().max().unwrap_or_default()
    }
}

#[async_trait]
impl Interceptor for Noting {
    async fn commit(&self, store: &MemoryStore, batch: Batch) -> Result<(), StoreError> {
        let count = {
            let mut batches = self.batches.lock().expect("nobody panicked");
            batches.push(batch.ops().len());
            batches.len()
        };
        if self.fails == Some(count) {
            return Err(StoreError::Full);
        }
        store.commit(batch).await
    }
}

/// Operations in a batch of a step that has as many envelopes as fit, each with the note of when its
/// time is over; and beside them what the mailbox holds and the numbers.
const LONGEST: usize = 2 * STEP_ENVELOPES + 2;

fn puts(count: usize, packet: &Bytes) -> (Request, oneshot::Receiver<Vec<Answer>>) {
    let put = || Put {
        to: peer(3),
        class: Class::Keep,
        ttl: 60,
        packet: packet.clone(),
    };
    let puts = std::iter::repeat_with(put).take(count).collect();
    Request::put(peer(2).into(), puts)
}

#[tokio::test]
async fn however_much_waits_no_step_is_longer_than_its_bound() {
    const REQUESTS: usize = 8;
    const PUTS: usize = 7_000;
    const ROOM: usize = 40_000;
    let (store, mut writer, _mailboxes) = relay_with_expired(0).await;
    writer.config.mailbox_envelopes = ROOM as u64;
    let noted = Noting::on(&store, None);
    writer.store = Arc::new(noted.clone());
    let noting = noted.interceptor();
    let (requests, replies): (Vec<_>, Vec<_>) =
        (0..REQUESTS).map(|_| puts(PUTS, &Bytes::new())).unzip();
    writer.finish(requests).await;
    let mut answers = Vec::new();
    for reply in replies {
        let part = reply.await.expect("answers");
        assert_eq!(part.len(), PUTS);
        answers.extend(part);
    }
    // In order: the first of all found room.
    let (taken, refused) = answers.split_at(ROOM);
    assert!(taken.iter().all(Result::is_ok));
    let full = Err(Refusal::MailboxFull);
    assert!(refused.iter().all(|answer| *answer == full));
    assert!(noting.longest() <= LONGEST, "{}", noting.longest());
    // The recipient has all of them at once.
    let numbers: Vec<_> = (1..=ROOM as u64).map(EnvelopeId).collect();
    let sender = peer(2).into();
    let what = What::Acknowledge { sender, numbers };
    let recipient = peer(3);
    writer
        .finish([Request::Change(Change { recipient, what })])
        .await;
    assert_eq!(unswept(&store).await, 0);
    let usage = store.get(records::usage(&recipient)).await.expect("read");
    assert_eq!(usage, None, "some are left");
    assert!(noting.longest() <= LONGEST, "{}", noting.longest());
}

#[tokio::test]
async fn a_step_takes_no_more_bytes_than_its_bound() {
    let (store, mut writer, _mailboxes) = relay_with_expired(0).await;
    let noted = Noting::on(&store, None);
    writer.store = Arc::new(noted.clone());
    let noting = noted.interceptor();
    let packet = Bytes::from(vec![0; STEP_BYTES / 4]);
    let (request, answers) = puts(9, &packet);
    writer.finish([request]).await;
    assert_eq!(answers.await.expect("answers"), [Ok(()); 9]);
    // Four of them, what the mailbox holds, and once the numbers.
    assert_eq!(*noting.batches.lock().expect("noted"), [10, 9, 3]);
}

#[tokio::test]
async fn of_a_request_that_takes_many_steps_only_the_one_that_failed_is_refused() {
    let (store, mut writer, _mailboxes) = relay_with_expired(0).await;
    writer.store = Arc::new(Noting::on(&store, Some(2)));
    let (request, answers) = puts(3 * STEP_ENVELOPES, &Bytes::new());
    writer.finish([request]).await;
    let answers = answers.await.expect("answers");
    let parts: Vec<_> = answers.chunks(STEP_ENVELOPES).collect();
    let unavailable = Err(Refusal::Unavailable);
    for (part, answer) in parts.into_iter().zip([Ok(()), unavailable, Ok(())]) {
        assert!(part.iter().all(|of| *of == answer), "not {answer:?}");
    }
}

#[tokio::test]
async fn changes_of_more_envelopes_than_can_be_put_off_let_their_recipients_go() {
    let (store, mut writer, _mailboxes) = relay_with_expired(0).await;
    let acknowledge = |of: PeerId| {
        let numbers = vec![EnvelopeId(1); STEP_ENVELOPES];
        let what = What::Acknowledge {
            sender: peer(2).into(),
            numbers,
        };
        let recipient = of;
        Request::Change(Change { recipient, what })
    };
    let (first, second) = (
        writer.directory.enter(peer(3)),
        writer.directory.enter(peer(4)),
    );
    store
        .faults()
        .fail_reads(3 * STEP_ENVELOPES, &StoreError::Full);
    writer
        .finish([acknowledge(peer(3)), acknowledge(peer(4))])
        .await;
    let kept: usize = writer.again.iter().map(Change::size).sum();
    assert!(kept <= STEP_ENVELOPES, "{kept} are put off");
    assert!(first.let_go.is_cancelled() || second.let_go.is_cancelled());
}
