//! What comes of a file goes to its place at once, and not into the inbox.

use std::path::Path;

use bytes::Bytes;
use outlive::record::{Key, Record, SegmentRecord};
use outlive::{ChannelId, FileEvent, FileInbox, FileInfo, Session, Store, TransferId};
use outlive_core::store::ReadLimit;
use outlive_core::wire::file::FileMessage;
use outlive_transports::MemoryRelay;

use crate::world::{Peer, content, id, pair, receive, soon};

const TRANSFER: TransferId = TransferId([7; 16]);

/// Sends a message about a file, and waits until the peer has it on disk.
async fn tell(session: &Session, message: FileMessage) {
    let sent = session.send(ChannelId::FILES, message.to_bytes()).await;
    let delivered = sent.expect("it is taken");
    soon("the message", delivered.delivered())
        .await
        .expect("it arrives");
}

async fn begin(session: &Session, whole: &[u8]) {
    let info = FileInfo {
        name: "a".to_owned(),
        size: whole.len() as u64,
        hash: *blake3::hash(whole).as_bytes(),
    };
    tell(session, FileMessage::Begin(TRANSFER, info)).await;
}

async fn part(session: &Session, offset: usize, bytes: &[u8]) {
    let part = FileMessage::Part {
        transfer: TRANSFER,
        offset: offset as u64,
        bytes: Bytes::copy_from_slice(bytes),
    };
    tell(session, part).await;
}

/// Accepts what is offered, and takes nothing of it.
async fn accept(files: &mut FileInbox, into: &Path) {
    match soon("the offer", files.next()).await {
        Ok(FileEvent::Offered(mut offer)) => offer.accept(into).await.expect("room"),
        other => panic!("{other:?} is no offer"),
    }
    match soon("the beginning", files.next()).await {
        Ok(FileEvent::Progress(_, progress)) => assert_eq!(progress.done, 0),
        other => panic!("{other:?} is no beginning"),
    }
}

/// Has a file accepted of which nothing came yet.
async fn accepted(from: &Session, by: &Peer, whole: &[u8]) -> FileInbox {
    let mut files = by.session(1).await.files().await.expect("nobody has it");
    begin(from, whole).await;
    accept(&mut files, by.disk.path()).await;
    files
}

/// How many segments wait in the inbox with their content, and how many without.
async fn segments(peer: &Peer, from: u8) -> (usize, usize) {
    let limit = ReadLimit {
        records: usize::MAX,
        bytes: usize::MAX,
    };
    let range = Key::all_segments(id(from));
    let rows = peer.store.range(range, limit).await.expect("rows");
    let placed = rows.iter().filter(|(_, value)| {
        let record = SegmentRecord::from_bytes(value).expect("a record");
        matches!(record, SegmentRecord::Placed { .. })
    });
    let placed = placed.count();
    (rows.len() - placed, placed)
}

#[tokio::test]
async fn a_file_is_put_together_while_the_app_takes_nothing_of_it() {
    let relay = MemoryRelay::new("relay");
    let (alice, mut bob) = pair(&relay).await;
    let whole = content(12 << 20);
    let path = alice.put("a", &whole);
    let sending = alice.session(2).await.send_file(path).await.unwrap();
    let mut files = bob.session(1).await.files().await.unwrap();
    let mut taken = 0;
    while taken < 4 << 20 {
        match soon("a part", files.next()).await.unwrap() {
            FileEvent::Offered(mut offer) => offer.accept(bob.disk.path()).await.unwrap(),
            FileEvent::Progress(_, progress) => taken = progress.done,
            other => panic!("{other:?} came too early"),
        }
    }
    let part = bob.part();
    let mut there = sending.progress();
    while there.done < taken + (2 << 20) {
        let changed = soon("what comes", sending.changed(there)).await.unwrap();
        there = changed.expect("it is not over");
    }
    assert!(std::fs::metadata(&part).unwrap().len() >= there.done);
    let (_, placed) = segments(&bob, 1).await;
    assert!(placed > 64, "{placed} segments were placed");
    drop(files);
    bob.crash().await;
    let mut files = bob.session(1).await.files().await.unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert!(std::fs::read(file.path()).unwrap() == whole);
    soon("the word of it", sending.done()).await.unwrap();
}

#[tokio::test]
async fn a_part_that_waits_in_the_inbox_fills_the_hole_before_those_behind_it() {
    let relay = MemoryRelay::new("relay");
    let (alice, mut bob) = pair(&relay).await;
    let to_bob = alice.session(2).await;
    let whole = content(200_000);
    let (first, second) = whole.split_at(100_000);
    let mut files = bob.session(1).await.files().await.unwrap();
    begin(&to_bob, &whole).await;
    // More of them than are taken at once.
    for offset in (0..first.len()).step_by(20_000) {
        part(&to_bob, offset, &first[offset..][..20_000]).await;
    }
    accept(&mut files, bob.disk.path()).await;
    part(&to_bob, first.len(), second).await;
    let (here, placed) = segments(&bob, 1).await;
    assert_eq!((here, placed), (10, 7));
    let lies = std::fs::read(bob.part()).unwrap();
    assert!(lies.len() == whole.len() && lies != whole);
    drop(files);
    bob.crash().await;
    let mut files = bob.session(1).await.files().await.unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert!(std::fs::read(file.path()).unwrap() == whole);
}

#[tokio::test]
async fn what_comes_for_a_file_that_was_checked_does_not_touch_it() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let to_bob = alice.session(2).await;
    let whole = content(100_000);
    let mut files = accepted(&to_bob, &bob, &whole).await;
    part(&to_bob, 0, &whole).await;
    assert_eq!(segments(&bob, 1).await, (0, 7));
    let file = receive(&mut files, bob.disk.path()).await;
    part(&to_bob, 0, &[0xee; 100_000]).await;
    assert_eq!(segments(&bob, 1).await, (7, 0));
    assert!(std::fs::read(file.path()).unwrap() == whole);
}

#[tokio::test]
async fn what_reaches_beyond_the_file_or_belongs_to_another_stays_in_the_inbox() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let to_bob = alice.session(2).await;
    let whole = content(100_000);
    let _files = accepted(&to_bob, &bob, &whole).await;
    let stranger = FileMessage::Part {
        transfer: TransferId([8; 16]),
        offset: 0,
        bytes: Bytes::from(vec![0xee; 50_000]),
    };
    tell(&to_bob, stranger).await;
    assert_eq!(segments(&bob, 1).await, (4, 0));
    part(&to_bob, 99_000, &[0xee; 50_000]).await;
    assert_eq!(segments(&bob, 1).await, (8, 0));
    part(&to_bob, usize::MAX, &[0xee; 50_000]).await;
    assert_eq!(segments(&bob, 1).await, (12, 0));
    let part = bob.part();
    assert_eq!(std::fs::metadata(part).unwrap().len(), 0);
}

#[tokio::test]
async fn what_nobody_would_take_stays_in_the_inbox_until_somebody_does() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let whole = content(200_000);
    let (first, second) = whole.split_at(100_000);
    drop(accepted(&to_bob, &bob, &whole).await);
    part(&to_bob, 0, first).await;
    assert_eq!(segments(&bob, 1).await, (7, 0));
    let mut files = to_alice.files().await.unwrap();
    match soon("a part", files.next()).await.unwrap() {
        FileEvent::Progress(_, progress) => assert_eq!(progress.done, 100_000),
        other => panic!("{other:?} is no part"),
    }
    part(&to_bob, first.len(), second).await;
    assert_eq!(segments(&bob, 1).await, (0, 7));
    let file = receive(&mut files, bob.disk.path()).await;
    assert!(std::fs::read(file.path()).unwrap() == whole);
}

#[tokio::test]
async fn a_part_that_is_skipped_counts_with_what_of_it_is_in_the_file() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let whole = content(100_000);
    let files = accepted(&to_bob, &bob, &whole).await;
    part(&to_bob, 0, &whole).await;
    drop(files);
    let mut inbox = to_alice.inbox(ChannelId::FILES).unwrap();
    let delivery = soon("the part", inbox.next()).await.unwrap();
    assert_eq!(delivery.payload().len(), 26);
    delivery.skip("nobody wants it").await.unwrap();
    let skipped = to_alice.skipped(ChannelId::FILES).await.unwrap();
    assert_eq!(skipped[0].bytes, 100_026);
}
