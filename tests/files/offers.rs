//! Offers whose inbox is dropped before they are decided about, and directories that can't be used.

use outlive::record::{Key, ReceivingFileRecord, ReceivingState, Record};
use outlive::{FileError, FileEvent, FileInbox, FileOffer, Store};
use outlive_core::store::Batch;
use outlive_transports::MemoryRelay;

use crate::world::{content, id, pair, receive, soon};

async fn offered(files: &mut FileInbox) -> FileOffer {
    match soon("an offer", files.next()).await {
        Ok(FileEvent::Offered(offer)) => offer,
        other => panic!("{other:?} is no offer"),
    }
}

#[tokio::test]
async fn an_offer_that_outlives_its_inbox_is_not_accepted_and_the_next_inbox_offers_the_file() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let whole = content(2 << 20);
    let sending = to_bob.send_file(alice.put("a", &whole)).await.unwrap();
    let mut files = to_alice.files().await.unwrap();
    let mut offer = offered(&mut files).await;
    drop(files);
    let mut files = to_alice.files().await.unwrap();
    for _ in 0..2 {
        let late = soon("an answer", offer.accept(bob.disk.path())).await;
        assert!(matches!(late, Err(FileError::InboxDropped)), "{late:?}");
        assert!(bob.names().is_empty());
    }
    let file = receive(&mut files, bob.disk.path()).await;
    assert!(std::fs::read(file.path()).unwrap() == whole);
    assert_eq!(bob.names(), ["a"]);
    soon("the word of it", sending.done()).await.unwrap();
}

#[tokio::test]
async fn an_acceptance_that_is_given_up_with_its_inbox_has_the_next_inbox_offer_the_file() {
    for (size, early) in [(0, false), (0, true), (2 << 20, false), (2 << 20, true)] {
        let relay = MemoryRelay::new("relay");
        let (alice, bob) = pair(&relay).await;
        let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
        let whole = content(size);
        let sending = to_bob.send_file(alice.put("a", &whole)).await.unwrap();
        let mut files = to_alice.files().await.unwrap();
        let mut offer = offered(&mut files).await;
        let held = bob.store.faults().hold();
        let accepting = async {
            tokio::select! {
                accepted = offer.accept(bob.disk.path()) => panic!("{accepted:?}"),
                () = async {
                    while !bob.is_writing(1, sending.transfer()) {
                        tokio::task::yield_now().await;
                    }
                } => {}
            }
        };
        soon("its record", accepting).await;
        drop((offer, files));
        let next = || {
            let to_alice = to_alice.clone();
            tokio::spawn(async move { to_alice.files().await })
        };
        let early = early.then(next);
        drop(held);
        // The record is written, and that is being undone, which can't be written down yet.
        let held = bob.store.faults().hold();
        let undoing = async {
            while !bob.is_writing(1, sending.transfer()) {
                tokio::task::yield_now().await;
            }
        };
        soon("the undoing", undoing).await;
        assert!(bob.names().is_empty());
        let opening = early.unwrap_or_else(next);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        drop(held);
        let opened = soon("the next inbox", opening).await;
        let mut files = opened.expect("no panic").unwrap();
        let file = receive(&mut files, bob.disk.path()).await;
        assert!(std::fs::read(file.path()).unwrap() == whole);
        assert_eq!(bob.names(), ["a"]);
        soon("the word of it", sending.done()).await.unwrap();
    }
}

#[tokio::test]
async fn an_acceptance_that_could_not_be_undone_is_gone_on_with_when_the_beginning_comes() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let whole = content(2 << 20);
    let sending = to_bob.send_file(alice.put("a", &whole)).await.unwrap();
    let mut files = to_alice.files().await.unwrap();
    let part = bob.put(&format!("a.{}.part", sending.transfer()), b"");
    let record = ReceivingFileRecord {
        info: sending.info().clone(),
        directory: bob.disk.path().to_str().unwrap().to_owned(),
        part: part.to_str().unwrap().to_owned(),
        state: ReceivingState::Coming,
    };
    let mut batch = Batch::new();
    let key = Key::ReceivingFile(id(1), sending.transfer());
    batch.put(key.to_bytes(), record.to_bytes());
    bob.store.commit(batch).await.unwrap();
    let first = soon("the beginning", files.next()).await;
    assert!(matches!(first, Ok(FileEvent::Progress(..))), "{first:?}");
    let file = receive(&mut files, bob.disk.path()).await;
    assert!(std::fs::read(file.path()).unwrap() == whole);
    soon("the word of it", sending.done()).await.unwrap();
}

/// Elsewhere every name is text.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_directory_whose_name_is_no_text_is_an_error_and_nothing_is_left_in_it() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    to_bob.send_file(alice.put("a", b"content")).await.unwrap();
    let mut files = to_alice.files().await.unwrap();
    let mut offer = offered(&mut files).await;
    let into = tempfile::tempdir().unwrap();
    let odd = into.path().join(OsStr::from_bytes(b"\xff"));
    std::fs::create_dir(&odd).unwrap();
    for _ in 0..2 {
        let refused = offer.accept(&odd).await;
        assert!(matches!(refused, Err(FileError::Name(_))), "{refused:?}");
    }
    assert_eq!(std::fs::read_dir(&odd).unwrap().count(), 0);
    offer.accept(bob.disk.path()).await.unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert_eq!(std::fs::read(file.path()).unwrap(), b"content");
}
